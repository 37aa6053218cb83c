"""Engine: brings the threads up in order: beat, load, warm up, preparation, reader, and the loop on this one."""

import logging
import os
import threading

from mondrian_server.engine.process.batch import Batch
from mondrian_server.engine.process.beat import Operations, start_beating
from mondrian_server.engine.process.loading import LoadedModel, LoadError, load
from mondrian_server.engine.process.loop import Loop
from mondrian_server.engine.process.mailbox import Arrived, Mailbox, Unwanted
from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.process.preparation import Preparation
from mondrian_server.engine.process.warming import warm_up
from mondrian_server.engine.protocol import (
    Cancel,
    Configure,
    EngineConfig,
    Loading,
    LoadFailed,
    Ready,
    Submit,
    ToEngine,
)
from mondrian_server.framing import BlockingChannel

_LOG = logging.getLogger(__name__)


class Reader:
    """The thread that reads commands. From its first moment on, the process ends when the channel closes."""

    def __init__(self, channel: BlockingChannel[ToEngine], mailbox: Mailbox):
        """Read from `channel` and leave letters in `mailbox`."""
        self._channel = channel
        self._mailbox = mailbox
        self._preparation: Preparation | None = None
        self._early: list[Submit] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def attach(self, preparation: Preparation) -> None:
        """Hand rows on to `preparation`, those that came before this call first."""
        with self._lock:
            for submit in self._early:
                preparation.take(submit)
            self._early.clear()
            self._preparation = preparation

    def _run(self) -> None:
        while (frame := self._channel.receive()) is not None:
            match frame:
                case Submit():
                    self._mailbox.put(Arrived(row=frame.row))
                    self._hand_on(frame)
                case Cancel():
                    self._mailbox.put(Unwanted(row=frame.row))
                case Configure():
                    _LOG.warning("a second Configure is ignored")
        os._exit(0)  # The server is gone. The MLX thread may be in an operation that nothing else can end.

    def _hand_on(self, submit: Submit) -> None:
        with self._lock:
            if self._preparation is None:
                self._early.append(submit)
            else:
                self._preparation.take(submit)


def serve(channel: BlockingChannel[ToEngine], outbox: Outbox, config: EngineConfig) -> int:
    """Load the model and serve until the channel closes; return the exit status of a failed start."""
    operations, mailbox = Operations(), Mailbox()
    reader = Reader(channel, mailbox)
    reader.start()
    start_beating(outbox, operations, lambda: mailbox.rows_held, config.beat_interval_s)
    try:
        with operations.running("load"):
            model = load(config, outbox.send)
    except LoadError as error:
        outbox.send(LoadFailed(message=str(error)))
        return 1
    preparation = Preparation(model, mailbox.put)
    loop = _warm_loop(model, config, mailbox, outbox, operations, preparation)
    outbox.send(Ready(model=model.description))
    preparation.start()
    reader.attach(preparation)
    loop.run()
    return 0


def _warm_loop(
    model: LoadedModel,
    config: EngineConfig,
    mailbox: Mailbox,
    outbox: Outbox,
    operations: Operations,
    preparation: Preparation,
) -> Loop:
    with operations.running("warm up"):
        weights = model.description.weights_bytes
        outbox.send(Loading(message="Warming up...", done_bytes=weights, total_bytes=weights))
        batch = Batch(model, config)
        warm_up(batch, preparation, model.vocabulary, pictures=model.description.accepts_images)
    return Loop(config, batch, model.vocabulary, mailbox, outbox, operations)
