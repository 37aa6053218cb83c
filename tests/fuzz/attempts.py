"""Attempts: what a hostile or broken caller does, as values that hypothesis can make smaller."""

from dataclasses import dataclass
from typing import cast

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st

from mondrian.v1 import advisor_service_pb2, analysis_service_pb2, model_service_pb2
from mondrian.v1 import analysis_pb2 as pb
from tests.fuzz.messages import Texts, messages

Metadata = tuple[tuple[str, str | bytes], ...]

SERVICES = (
    *analysis_service_pb2.DESCRIPTOR.services_by_name.values(),
    *advisor_service_pb2.DESCRIPTOR.services_by_name.values(),
    *model_service_pb2.DESCRIPTOR.services_by_name.values(),
    *health_pb2.DESCRIPTOR.services_by_name.values(),
    *reflection_pb2.DESCRIPTOR.services_by_name.values(),
)
METHODS = cast("tuple[MethodDescriptor, ...]", tuple(method for service in SERVICES for method in service.methods))
PATHS = {method.full_name: f"/{method.containing_service.full_name}/{method.name}" for method in METHODS}
ODD_PATHS = (
    "/",
    "//",
    "/mondrian.v1.AnalysisService",
    "/mondrian.v1.AnalysisService/",
    "/mondrian.v1.AnalysisService/analyze",
    "/mondrian.v1.AnalysisService/Analyze/",
    "/mondrian.v2.AnalysisService/Analyze",
    "/grpc.health.v1.Health/List",
    "/" + "x" * 3000,
    "/%00/../..",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A call: to where, with which messages, and how it is left.

    closes: whether this side says that no more messages come.
    timeout_s: the call's deadline.
    leaves_after_s: when this side cancels the call.
    """

    path: str
    sent: tuple[bytes, ...]
    metadata: Metadata = ()
    closes: bool = True
    timeout_s: float = 20.0
    leaves_after_s: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it sends one message and closes, as an ordinary client does."""
        return self.closes and len(self.sent) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Bytes sent to the port that may be no HTTP/2 at all."""

    data: bytes


def attempts(texts: Texts) -> st.SearchStrategy[Attempt | Noise]:
    """Return anything that a caller may do."""
    odd = st.one_of(
        st.sampled_from(ODD_PATHS), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
    )
    method = st.sampled_from(METHODS).flatmap(lambda each: _calls(st.just(PATHS[each.full_name]), _sent(each, texts)))
    sensible = st.sampled_from(METHODS[:2]).flatmap(
        lambda each: _calls(st.just(PATHS[each.full_name]), _nearly_right(each, texts))
    )
    strange = _calls(odd.map(lambda path: "/" + path.lstrip("/")), st.tuples(st.binary(max_size=30)))
    # Of ten: hypothesis would weigh the branches of branches alike.
    kinds = (method, method, method, method, method, sensible, sensible, sensible, strange, _noise())
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


def _calls(paths: st.SearchStrategy[str], sent: st.SearchStrategy[tuple[bytes, ...]]) -> st.SearchStrategy[Attempt]:
    leaving = st.sampled_from((None, None, None, None, None, None, None, 0.0, 0.003, 0.05))
    ordinary = st.builds(
        Attempt,
        path=paths,
        sent=sent,
        metadata=_metadata(),
        timeout_s=st.sampled_from((20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 1e9, 1.0, 0.05, 0.001, 0.0)),
        leaves_after_s=leaving,
    )
    half_open = st.builds(
        Attempt,
        path=paths,
        sent=st.one_of(st.just(()), sent),
        closes=st.just(False),
        timeout_s=st.just(0.3),
        leaves_after_s=leaving,
    )
    return st.integers(0, 9).flatmap(lambda which: ordinary if which else half_open)


def _sent(method: MethodDescriptor, texts: Texts) -> st.SearchStrategy[tuple[bytes, ...]]:
    right = messages(method.input_type, texts).map(_bytes)
    one = st.one_of(right, right.flatmap(_broken), st.binary(max_size=200))
    return st.one_of(st.tuples(one), st.tuples(one), st.tuples(one, one), st.just(()))


def _nearly_right(method: MethodDescriptor, texts: Texts) -> st.SearchStrategy[tuple[bytes, ...]]:
    """Return requests that would be accepted, but for a part of another message that is put into them."""
    good = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(max_tokens=3))
    config = analysis_service_pb2.AnalyzeRequest(config=good).SerializeToString()
    parts = st.one_of(
        messages(pb.Sampling.DESCRIPTOR, texts).map(lambda part: _config(sampling=part)),
        messages(pb.Delivery.DESCRIPTOR, texts).map(lambda part: _config(delivery=part)),
        messages(pb.TokenDetail.DESCRIPTOR, texts).map(lambda part: _config(token_detail=part)),
        messages(pb.Image.DESCRIPTOR, texts).map(lambda part: _config(images=[part])),
        st.just(b""),
    )
    return parts.map(lambda part: (config + part,))


def _config(**fields: object) -> bytes:
    config = pb.AnalysisConfig(**fields)  # pyright: ignore[reportArgumentType]  # fields by name
    return analysis_service_pb2.AnalyzeRequest(config=config).SerializeToString()


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _broken(data: bytes) -> st.SearchStrategy[bytes]:
    """Return a message's bytes cut short, doubled, changed, or with fields that nobody knows."""
    position = st.integers(0, max(0, len(data) - 1))
    unknown = (b"\xfa\xff\x03\x03abc", b"\x80\x80\x04\x01", b"\xfb\xff\x03\xfc\xff\x03", b"\x0b\x0c", b"\x07", b"\0\0")
    return st.one_of(
        position.map(lambda at: data[:at]),
        st.just(data + data),
        st.sampled_from(unknown).map(lambda field: data + field),
        st.tuples(position, st.integers(0, 255)).map(lambda change: _changed(data, *change)),
        position.map(lambda at: data[:at] + b"\xff\xfe\xc3(" + data[at + 4 :]),
    )


def _changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def _metadata() -> st.SearchStrategy[Metadata]:
    texts = st.sampled_from(
        ("", "Bearer", "Bearer x", "Basic Og==", "é".encode().decode("latin-1"), "x" * 4000, "~" * 20)
    )
    named = st.tuples(st.sampled_from(("authorization", "x-forwarded-for", "mondrian", "user-agent", "x_y.z-1")), texts)
    binary = st.tuples(st.sampled_from(("x-bin", "grpc-trace-bin", "authorization-bin")), st.binary(max_size=50))
    some = st.lists(st.one_of(named, binary), max_size=3).map(tuple)
    return st.one_of(st.just(()), st.just(()), some)


def _frame(body: bytes, kind: int, flags: int, stream: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream + body


def _noise() -> st.SearchStrategy[Noise]:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\0\0\0\x04\0\0\0\0\0"
    frame = st.builds(
        _frame,
        st.binary(max_size=60),
        st.integers(0, 12),
        st.integers(0, 255),
        st.sampled_from((b"\0\0\0\0", b"\0\0\0\x01", b"\0\0\0\x03", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")),
    )
    frames = st.lists(frame, max_size=4).map(b"".join)
    data = st.one_of(
        st.binary(max_size=100),
        st.just(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        st.integers(0, len(preface)).map(lambda at: preface[:at]),
        frames.map(lambda sent: preface + settings + sent),
    )
    return data.map(lambda sent: Noise(data=sent))
