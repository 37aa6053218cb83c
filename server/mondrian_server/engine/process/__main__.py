"""The engine process's entry: takes its channel, starts reading and beating, then loads the model and serves."""

import logging
import os
import queue
import signal
import sys
from typing import Any

from setproctitle import setproctitle

from mondrian_server.child import channel_socket
from mondrian_server.engine.process.beat import Operations, start_beating
from mondrian_server.engine.process.mailbox import Mailbox
from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.process.reader import RowsHeld, start_reading
from mondrian_server.engine.protocol import Configure, EngineConfig, Submit, ToEngine
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
    outbox, operations, held = Outbox(channel), Operations(), RowsHeld()
    letters: Mailbox[Any] = Mailbox()
    submissions: queue.SimpleQueue[Submit] = queue.SimpleQueue()
    start_reading(channel, held, letters.put, submissions.put)
    start_beating(outbox, operations, held, config.beat_interval_s)
    with operations.running("load"):
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's; pictures have threads of their own (`Encoder`).
        # Imported here: mlx-vlm takes seconds to import, and beats must not wait for that.
        from mondrian_server.engine.process.engine import serve  # noqa: PLC0415
    return serve(config, outbox, operations, letters, submissions, held)


if __name__ == "__main__":
    sys.exit(main())
