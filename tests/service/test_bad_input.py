"""Bad input: refused by the name of the field, with the server unharmed and other streams undisturbed."""

import contextlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.checkpoints import EMBEDDED
from tests.service.calls import Call, Running, eventually, settings_for, started

MEBIBYTE = 1024 * 1024
NOTHING = (0, 0, 0, 0)
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
NAN, INFINITY = math.nan, math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A bad request, made when it is needed, and what is said of it."""

    id: str
    make: Callable[[], bytes]
    field: str
    reason: str = "INVALID_REQUEST"


def request(config: pb.AnalysisConfig, *, request_id: str = "") -> bytes:
    """Return the message's bytes."""
    return service_pb.AnalyzeRequest(config=config, request_id=request_id).SerializeToString()


def text(id_: str, field: str, *, reason: str = "INVALID_REQUEST", prompt: str = "Hello", **fields: object) -> Bad:
    """Return a bad request without images."""
    config: dict[str, object] = {"prompt": prompt, **fields}
    return Bad(
        id=id_,
        make=lambda: request(pb.AnalysisConfig(**config)),  # pyright: ignore[reportArgumentType]  # fields by name
        field=f"config.{field}",
        reason=reason,
    )


def sampling(id_: str, field: str, *, reason: str = "INVALID_REQUEST", **fields: object) -> Bad:
    """Return a bad request whose sampling is at fault."""
    message = pb.Sampling(**fields)  # pyright: ignore[reportArgumentType]  # fields by name
    return text(id_, f"sampling.{field}", reason=reason, sampling=message)


def delivery(id_: str, field: str, **fields: object) -> Bad:
    """Return a bad request whose delivery is at fault."""
    message = pb.Delivery(**fields)  # pyright: ignore[reportArgumentType]  # fields by name
    return text(id_, f"delivery.{field}", delivery=message)


def files(id_: str, make: Callable[[], list[bytes]], field: str, *, reason: str = "INVALID_IMAGE") -> Bad:
    """Return a bad request whose images are at fault."""
    return Bad(
        id=id_,
        make=lambda: request(pb.AnalysisConfig(images=[pb.Image(data=data) for data in make()])),
        field=f"config.{field}",
        reason=reason,
    )


def broken_text(id_: str, config: pb.AnalysisConfig, field: str) -> Bad:
    """Return a request in which the text `@@@@` is replaced by bytes that are not UTF-8."""
    return Bad(id=id_, make=lambda: request(config).replace(b"@@@@", b"ok\xc3\x28"), field=f"config.{field}")


def sample(suffix: str) -> bytes:
    """Return a sample picture's file of a format."""
    return min((EMBEDDED / "samples").glob(f"*{suffix}")).read_bytes()


def png(width: int, height: int) -> bytes:
    """Return a black PNG of one bit a pixel: small as a file, and as large as wanted in pixels."""
    rows = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join([rows.compress(row * height), rows.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def archive() -> bytes:
    """Return a ZIP archive that holds a good picture."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archived:
        archived.writestr("composition.jpg", sample(".jpg"))
    return buffer.getvalue()


def half(suffix: str) -> bytes:
    """Return the first half of a sample picture's file."""
    whole = sample(suffix)
    return whole[: len(whole) // 2]


TEXTS = [
    text("no-prompt-and-no-image", "prompt", prompt=""),
    text("a-blank-prompt", "prompt", prompt=" \n\t "),
    text("a-prompt-of-32001-characters", "prompt", prompt="é" * 32_001),
    text("instructions-of-32001-characters", "instructions", instructions="é" * 32_001),
    text("a-prompt-beyond-the-context", "prompt", prompt="根據您的問題" * 2_000, reason="CONTEXT_EXCEEDED"),
    text("an-unknown-advisor", "advisor", advisor="advisors/nobody"),
    text("an-unknown-model", "model", model="models/gpt-unknown"),
    text("advisor-and-instructions", "instructions", advisor="ansel", instructions="Be brief."),
    text("no-time", "time_limit", time_limit=Duration()),
    text("negative-time", "time_limit", time_limit=Duration(seconds=-1)),
    text("malformed-time", "time_limit", time_limit=Duration(nanos=2_000_000_000)),
]
SAMPLINGS = [
    sampling("temperature-nan", "temperature", temperature=NAN),
    sampling("temperature-infinite", "temperature", temperature=INFINITY),
    sampling("temperature-negative", "temperature", temperature=-0.1),
    sampling("temperature-above-2", "temperature", temperature=2.01),
    sampling("top-p-nan", "top_p", top_p=NAN),
    sampling("top-p-infinite", "top_p", top_p=INFINITY),
    sampling("top-p-negative", "top_p", top_p=-0.5),
    sampling("top-p-0", "top_p", top_p=0.0),
    sampling("top-p-above-1", "top_p", top_p=1.01),
    sampling("top-k-negative", "top_k", top_k=-1),
    sampling("min-p-nan", "min_p", min_p=NAN),
    sampling("min-p-infinite", "min_p", min_p=-INFINITY),
    sampling("min-p-negative", "min_p", min_p=-0.5),
    sampling("min-p-above-1", "min_p", min_p=1.01),
    sampling("repetition-penalty-nan", "repetition_penalty", repetition_penalty=NAN),
    sampling("repetition-penalty-infinite", "repetition_penalty", repetition_penalty=INFINITY),
    sampling("repetition-penalty-negative", "repetition_penalty", repetition_penalty=-1.0),
    sampling("repetition-penalty-0", "repetition_penalty", repetition_penalty=0.0),
    sampling("max-tokens-0", "max_tokens", max_tokens=0),
    sampling("max-tokens-negative", "max_tokens", max_tokens=-(2**31)),
    sampling("max-tokens-beyond-the-context", "max_tokens", max_tokens=1_000_000, reason="CONTEXT_EXCEEDED"),
    sampling("max-tokens-beyond-any-context", "max_tokens", max_tokens=2**31 - 1),
    sampling("min-tokens-negative", "min_tokens", min_tokens=-1),
    sampling("min-tokens-above-max-tokens", "min_tokens", min_tokens=6, max_tokens=5),
    sampling("min-tokens-above-the-default-max-tokens", "min_tokens", min_tokens=513),
    sampling("an-empty-stop-string", "stop[1]", stop=["fine", ""]),
    sampling("a-stop-string-of-257-characters", "stop[0]", stop=["é" * 257]),
    sampling("nine-stop-strings", "stop", stop=list("abcdefghi")),
]
DELIVERIES = [
    delivery("negative-token-interval", "token_interval", token_interval=Duration(nanos=-1)),
    delivery("token-interval-above-60-s", "token_interval", token_interval=Duration(seconds=61)),
    delivery("negative-max-tokens-a-message", "max_tokens", max_tokens=-1),
    delivery("progress-interval-below-100-ms", "progress_interval", progress_interval=Duration(nanos=99_000_000)),
    delivery("progress-interval-0", "progress_interval", progress_interval=Duration()),
    delivery("negative-progress-interval", "progress_interval", progress_interval=Duration(seconds=-5)),
    delivery("malformed-interval", "token_interval", token_interval=Duration(seconds=1, nanos=-1)),
]
IMAGES = [
    files("zero-bytes", lambda: [b""], "images[0].data"),
    files("half-a-jpeg", lambda: [half(".jpg")], "images[0].data"),
    files("half-a-png", lambda: [half(".png")], "images[0].data"),
    files("half-a-webp", lambda: [half(".webp")], "images[0].data"),
    files("a-zip-archive", lambda: [archive()], "images[0].data"),
    files("an-html-page", lambda: [b"<!doctype html><html><body>404</body></html>"], "images[0].data"),
    files("random-bytes-behind-a-png-signature", lambda: [b"\x89PNG\r\n\x1a\n" + bytes(range(256))], "images[0].data"),
    files("a-decompression-bomb", lambda: [png(30_000, 30_000)], "images[0].data"),
    files("51-megapixels", lambda: [png(8_500, 6_000)], "images[0].data"),
    files("the-second-image-is-bad", lambda: [sample(".jpg"), b"no"], "images[1].data"),
    files("an-image-over-20-mib", lambda: [bytes(20 * MEBIBYTE + 1)], "images[0].data"),
    files("nine-images", lambda: [png(8, 8)] * 9, "images", reason="INVALID_REQUEST"),
    files("25-mib-of-images", lambda: [bytes(25 * MEBIBYTE // 2)] * 2, "images", reason="INVALID_REQUEST"),
]
BYTES = [
    broken_text("prompt-not-utf-8", pb.AnalysisConfig(prompt="@@@@"), "prompt"),
    broken_text("advisor-not-utf-8", pb.AnalysisConfig(prompt="Hello", advisor="@@@@"), "advisor"),
    broken_text(
        "second-stop-string-not-utf-8",
        pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(stop=["fine", "@@@@"])),
        "sampling.stop[1]",
    ),
    Bad(id="no-config", make=lambda: b"", field="config.prompt"),
    Bad(
        id="a-request-id-of-65-characters",
        make=lambda: request(pb.AnalysisConfig(prompt="Hello"), request_id="x" * 65),
        field="request_id",
    ),
]


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


@pytest.mark.parametrize("bad", [*TEXTS, *SAMPLINGS, *DELIVERIES, *IMAGES, *BYTES], ids=lambda bad: bad.id)
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
    outcome = await up.ask(pb.AnalysisConfig(images=[pb.Image(data=b"GIF89a")]))
    failed = outcome.events[-1].failed
    assert (failed.error.code, failed.error.message) == (INVALID.value[0], outcome.message)
    assert [detail.TypeName() for detail in failed.error.details] == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]
    assert "a GIF image; JPEG, PNG and WebP are accepted" in failed.error.message


async def test_what_is_refused_never_reads_like_the_limit(up: Running) -> None:
    """One byte too many is not told as "20.0 MiB; at most 20.0 MiB are accepted"."""
    outcome = await up.ask(pb.AnalysisConfig(images=[pb.Image(data=bytes(20 * MEBIBYTE + 1))]))
    assert "the image has 20.1 MiB; at most 20.0 MiB are accepted" in outcome.message


async def test_the_server_answers_as_before(up: Running, picture: bytes) -> None:
    """After all that, a good request with a picture is answered."""
    outcome = await up.ask(pb.AnalysisConfig(images=[pb.Image(data=picture)], sampling=pb.Sampling(max_tokens=3)))
    assert outcome.completed.usage.image_tokens > 0


@pytest_asyncio.fixture(scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service with one slot, where one analysis and 1 MiB of images may wait."""
    settings = settings_for(
        tmp_path_factory.mktemp("data"),
        slots=1,
        lookahead=0,
        max_waiting_analyses=1,
        max_waiting_bytes=MEBIBYTE,
        max_normalised_pixels=MEBIBYTE,
    )
    async with started(settings) as running:
        yield running


LONG = pb.Sampling(max_tokens=3_000, min_tokens=3_000)
GARBAGE = pb.AnalysisConfig(images=[pb.Image(data=b"these bytes are no image")])


async def test_a_full_queue_refuses_before_it_looks_at_an_image(narrow: Running) -> None:
    """With as many waiting as may, the next is RESOURCE_EXHAUSTED with RetryInfo, whatever its images are."""
    running = narrow.call(pb.AnalysisConfig(prompt="Hello", sampling=LONG))
    await running.until_token()
    waiting = narrow.call(pb.AnalysisConfig(prompt="Hello", sampling=LONG))
    await waiting.until_stage(pb.STAGE_QUEUED)
    outcome = await narrow.ask(GARBAGE)
    assert (outcome.code, outcome.domain, outcome.reason) == (EXHAUSTED, "mondrian", "TOO_MANY_ANALYSES")
    assert outcome.retry_after_s > 0
    assert outcome.events == []
    await _end(narrow, running, waiting)
    assert (await narrow.ask(GARBAGE)).reason == "INVALID_IMAGE"


async def test_full_image_memory_refuses_images_but_not_text(narrow: Running) -> None:
    """With the memory for images taken, a request with images is RESOURCE_EXHAUSTED; one without may wait."""
    running = narrow.call(pb.AnalysisConfig(images=[pb.Image(data=png(1_000, 1_000))], sampling=LONG))
    await running.until_token()
    outcome = await narrow.ask(GARBAGE)
    assert (outcome.code, outcome.domain, outcome.reason) == (EXHAUSTED, "mondrian", "TOO_MANY_BYTES")
    assert outcome.retry_after_s > 0
    assert outcome.events == []
    waiting = narrow.call(pb.AnalysisConfig(prompt="Hello", sampling=LONG))
    await waiting.until_stage(pb.STAGE_QUEUED)
    await _end(narrow, running, waiting)
    assert (await narrow.ask(GARBAGE)).reason == "INVALID_IMAGE"


async def _end(up: Running, *calls: Call) -> None:
    for call in calls:
        call.cancel()
    await eventually(lambda: up.held == NOTHING)
