"""Warming: one short text and one picture through the real path, so that the first caller waits for no kernel."""

from mondrian_server.engine.process.batch import Batch
from mondrian_server.engine.process.embedding import encode
from mondrian_server.engine.process.loading import LoadedModel
from mondrian_server.engine.process.preparation import Preparation
from mondrian_server.engine.process.rows import Row, open_row
from mondrian_server.engine.protocol import RowSampling, Submit
from mondrian_server.pictures import Picture

_SIDE = 64


def warm_up(model: LoadedModel, batch: Batch, preparation: Preparation) -> None:
    """Generate a few tokens about nothing, and if the model accepts images about a grey square."""
    grey = Picture(width=_SIDE, height=_SIDE, pixels=bytes([128]) * (_SIDE * _SIDE * 3), digest=b"warm up")
    for shown in ((), (grey,)) if model.description.accepts_images else ((),):
        row = open_row(preparation.prepare(_submit(shown)), model.vocabulary)
        _generate(model, batch, row)


def _generate(model: LoadedModel, batch: Batch, row: Row) -> None:
    for picture in batch.pictures_to_encode(row):
        row.features[picture.digest] = encode(model, picture)
    batch.enter(row)
    while not batch.prefill(row)[1]:
        pass
    batch.join()
    while batch.decoding:
        batch.decode()


def _submit(pictures: tuple[Picture, ...]) -> Submit:
    sampling = RowSampling(
        max_tokens=2,
        default_max_tokens=2,
        min_tokens=0,
        temperature=1.0,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.1,
        seed=0,
        stop=(),
    )
    return Submit(
        row=0,
        instructions="",
        prompt="Hello",
        pictures=pictures,
        sampling=sampling,
        cache_scope="\x00warm up",
        details=True,
    )
