"""The engine process's entry: takes its channel, loads the model it is told to, serves until the channel closes."""

import logging
import signal
import sys

from setproctitle import setproctitle

from mondrian_server.child import channel_socket
from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.protocol import Configure, EngineConfig, ToEngine
from mondrian_server.framing import BlockingChannel


def main() -> int:
    """Run the engine and return the exit status."""
    setproctitle("mondrian: engine")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The server decides when the engine ends.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="engine: %(message)s")
    with channel_socket() as end:
        channel: BlockingChannel[ToEngine] = BlockingChannel(end, ToEngine)
        first = channel.receive()
        if first is None:
            return 0
        if not isinstance(first, Configure):
            logging.error("the first frame must be Configure, not %s", type(first).__name__)
            return 1
        return _serve(channel, first.config)


def _serve(channel: BlockingChannel[ToEngine], config: EngineConfig) -> int:
    # Imported here: mlx-vlm takes seconds to import, and a parent that is gone must not wait for that.
    from mondrian_server.engine.process.engine import serve  # noqa: PLC0415

    return serve(channel, Outbox(channel), config)


if __name__ == "__main__":
    sys.exit(main())
