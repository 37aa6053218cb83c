"""Every format that is accepted, from the caller's file to the model's answer."""

import pytest

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.images.formats import ACCEPTED
from tests.images.good_files import good_files
from tests.service.calls import Running


@pytest.mark.parametrize("kind", [format_.name for format_ in ACCEPTED])
async def test_an_image_of_each_format_is_looked_at(up: Running, kind: str) -> None:
    """The model sees a picture, whatever file it came in."""
    data = next(iter(good_files(kind).values()))
    config = pb.AnalysisConfig(images=[pb.Image(data=data)], prompt="Go on.", sampling=pb.Sampling(max_tokens=2))
    outcome = await up.ask(config)
    assert outcome.completed.usage.image_tokens > 0
