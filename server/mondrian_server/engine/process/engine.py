"""Engine: loads the model, warms it up and runs the loop, all on the calling thread, the MLX thread."""

import queue

import mlx.core as mx

from mondrian_server.engine.process.batch import Batch
from mondrian_server.engine.process.beat import Operations
from mondrian_server.engine.process.encoding import Encoder
from mondrian_server.engine.process.loading import LoadedModel, LoadError, load, one_line
from mondrian_server.engine.process.loop import Letters, Loop
from mondrian_server.engine.process.outbox import Outbox
from mondrian_server.engine.process.preparation import Preparation
from mondrian_server.engine.process.reader import RowsHeld
from mondrian_server.engine.process.warming import warm_up
from mondrian_server.engine.protocol import EngineConfig, LoadFailed, Loading, Ready, Submit


def serve(
    config: EngineConfig,
    outbox: Outbox,
    operations: Operations,
    letters: Letters,
    submissions: "queue.SimpleQueue[Submit]",
    held: RowsHeld,
) -> int:
    """Serve for as long as the process lives; return the exit status of a start that failed."""
    try:
        with operations.running("load"):
            model = load(config, outbox.send)
        preparation = Preparation(model, submissions, letters.put)
        encoder = Encoder(model, operations, letters.put)
        with operations.running("warm up"):
            batch = _warm_batch(model, config, outbox, preparation)
    except LoadError as error:
        outbox.send(LoadFailed(message=str(error)))
        return 1
    peak, active = mx.get_peak_memory(), mx.get_active_memory()
    outbox.send(Ready(model=model.description, peak_memory_bytes=peak, active_memory_bytes=active))
    preparation.start()
    encoder.start()
    Loop(config, batch, encoder, model.vocabulary, letters, outbox, operations, held).run()
    return 0


def _warm_batch(model: LoadedModel, config: EngineConfig, outbox: Outbox, preparation: Preparation) -> Batch:
    weights = model.description.weights_bytes
    outbox.send(Loading(message="Warming up...", done_bytes=weights, total_bytes=weights))
    try:
        batch = Batch(model, config)
        warm_up(model, batch, preparation)
    except Exception as error:
        raise LoadError(f"The model {config.model} cannot be used: {one_line(error)}") from error
    return batch
