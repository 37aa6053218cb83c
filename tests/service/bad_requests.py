"""Bad requests: each with the field and the reason that a caller must be told."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.service.files import archive, half, png, sample

MEBIBYTE = 1024 * 1024
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
ALL = [*TEXTS, *SAMPLINGS, *DELIVERIES, *IMAGES, *BYTES]
