"""Bad input: refused by the name of the field, with the server unharmed and other streams undisturbed."""

import contextlib
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from tests.conditions import eventually
from tests.service.bad_requests import ALL, MEBIBYTE, Bad, request
from tests.service.calls import Call, Running

NOTHING = (0, 0, 0, 0)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class Company:
    """Long analyses beside the bad requests: each must go on, and give the text that it gives undisturbed."""

    CONFIG = pb.AnalysisConfig(
        prompt="Describe a picture in detail.",
        sampling=pb.Sampling(max_tokens=600, min_tokens=600, temperature=1.0, seed=7),
        delivery=pb.Delivery(token_interval=Duration()),
    )

    def __init__(self, up: Running, alone: str) -> None:
        """Hold the text of the analysis without any other beside it."""
        self._up = up
        self._alone = alone
        self._call: Call | None = None

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Have an analysis generate while the block runs, and see it go on after it."""
        if self._call is not None and self._call.ended:
            await self.leave()
        if self._call is None:
            self._call = self._up.call(self.CONFIG)
            await self._call.until_token()
        seen = self._call.sequence
        yield
        await self._call.until(lambda event: event.sequence > seen or event.HasField("completed"))

    async def leave(self) -> None:
        """Wait for the end of the analysis, and compare."""
        if self._call is not None:
            outcome, self._call = await self._call.outcome(), None
            assert outcome.code is grpc.StatusCode.OK
            assert outcome.completed.text == outcome.text == self._alone


@pytest_asyncio.fixture(scope="module")
async def company(up: Running) -> AsyncGenerator[Company]:
    """Long analyses that run beside every bad request of this module."""
    alone = await up.ask(Company.CONFIG)
    company = Company(up, alone.completed.text)
    yield company
    await company.leave()
    await eventually(lambda: up.held == NOTHING)


@pytest.mark.parametrize("bad", ALL, ids=lambda bad: bad.id)
async def test_bad_input_is_refused_by_name_and_harms_nobody(up: Running, company: Company, bad: Bad) -> None:
    """The call ends INVALID_ARGUMENT with a stable reason and the field, and the stream beside it goes on."""
    data = bad.make()
    async with company.kept():
        outcome = await up.send(data).outcome()
    assert (outcome.code, outcome.domain, outcome.reason) == (INVALID, "mondrian", bad.reason)
    assert outcome.field_at_fault == bad.field
    assert outcome.message.startswith(f"{bad.field}: ")
    assert "e+" not in outcome.message, "a count is written in full"


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", request(pb.AnalysisConfig(prompt="Hello"))[:-1]])
async def test_a_message_that_is_none_is_refused(up: Running, company: Company, data: bytes) -> None:
    """Bytes that are no request end INVALID_ARGUMENT; there is no field to name."""
    async with company.kept():
        outcome = await up.send(data).outcome()
    assert (outcome.code, outcome.domain, outcome.reason) == (INVALID, "mondrian", "INVALID_REQUEST")
    assert outcome.events == []


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_an_over_sized_message_is_refused(up: Running, company: Company, compression: grpc.Compression) -> None:
    """A message beyond the limit is RESOURCE_EXHAUSTED before anybody parses it, small as it may be in transit."""
    data = request(pb.AnalysisConfig(images=[pb.Image(data=bytes(28 * MEBIBYTE))]))
    async with company.kept():
        outcome = await up.send(data, compression=compression).outcome()
    assert outcome.code is EXHAUSTED


async def test_a_bad_image_ends_its_analysis_with_the_same_error_in_the_stream(up: Running) -> None:
    """The terminal event `failed` carries the status with which the call ends."""
    outcome = await up.ask(pb.AnalysisConfig(images=[pb.Image(data=b"BM" + bytes(12))]))
    failed = outcome.events[-1].failed
    assert (failed.error.code, failed.error.message) == (INVALID.value[0], outcome.message)
    assert [detail.TypeName() for detail in failed.error.details] == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]
    assert "a BMP image; JPEG, PNG, WebP, HEIC, AVIF and GIF are accepted" in failed.error.message


async def test_the_server_answers_as_before(up: Running, picture: bytes) -> None:
    """After all that, a good request with a picture is answered."""
    outcome = await up.ask(pb.AnalysisConfig(images=[pb.Image(data=picture)], sampling=pb.Sampling(max_tokens=3)))
    assert outcome.completed.usage.image_tokens > 0
