"""The image process: takes image files from the server, one at a time, and gives back pictures or refusals."""

import contextlib
import math
import resource
import signal
from collections.abc import Callable
from typing import TypeAlias

from setproctitle import setproctitle

from mondrian_server.child import channel_socket
from mondrian_server.framing import BlockingChannel
from mondrian_server.images.normalisation import Refusal, normalise, prepare_pillow
from mondrian_server.images.protocol import Configure, Decode, Decoded, ImageLimits, Ready, Refused, ToImages
from mondrian_server.pictures import Picture

Normalise: TypeAlias = Callable[[bytes, ImageLimits], Picture]


def main(normalise: Normalise = normalise) -> None:
    """Serve until the server is gone."""
    setproctitle("mondrian: images")
    channel: BlockingChannel[ToImages] = BlockingChannel(channel_socket(), ToImages)
    first = channel.receive()
    if not isinstance(first, Configure):
        return
    prepare_pillow()
    _bound(first.limits)
    try:
        channel.send(Ready())
        while isinstance(frame := channel.receive(), Decode):
            channel.send(_answer(frame, first.limits, normalise))
    except ConnectionError:
        pass  # The server went while an image was being decoded: nobody waits for it.


def _answer(frame: Decode, limits: ImageLimits, normalise: Normalise) -> Decoded | Refused:
    # The server's clock ends a decode that takes too long. This one ends it where the server itself is gone.
    signal.alarm(math.ceil(limits.decode_limit_s) + 1)
    try:
        return Decoded(id=frame.id, picture=normalise(frame.data, limits))
    except Refusal as refusal:
        return Refused(id=frame.id, message=str(refusal))
    finally:
        signal.alarm(0)


def _bound(limits: ImageLimits) -> None:
    """Bound the memory where the platform can (Linux; macOS takes the call and ignores it), and write no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # Where it cannot be, the pixel limit still stands.
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_limit_bytes, limits.memory_limit_bytes))


if __name__ == "__main__":
    main()
