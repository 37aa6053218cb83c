"""The error tree: drawn, in the contract, and complete."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from mondrian_server import errors
from mondrian_server.errors import Code, MondrianError, StartupError

PROTO = Path(__file__).parents[2] / "protos" / "mondrian" / "v1" / "analysis_service.proto"
Row = tuple[str, str]


def kinds(base: type[MondrianError] = MondrianError) -> Iterator[type[MondrianError]]:
    """Yield every class below `base`."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def drawn() -> dict[str, tuple[str, str, str]]:
    """Return code, reason and retry of each class in the drawing."""
    rows = re.findall(r"^[│├└─ ]*[├└]── (\w+) +([A-Z_]+) +([A-Z_]+) +(yes|no)$", errors.__doc__ or "", re.MULTILINE)
    return {name: (code, reason, retry) for name, code, reason, retry in rows}


def tabled() -> list[tuple[str, str, str]]:
    """Return code, reason and meaning of each line of the contract's table."""
    return re.findall(r"^// {5}([A-Z_]+) +([A-Z_]+) {2,}(\S.*)$", PROTO.read_text(), re.MULTILINE)


def test_every_error_is_drawn_as_it_is() -> None:
    """The drawing in errors.py and the classes are the same, both ways."""
    expected = {kind.__name__: (kind.code.name, kind.reason) for kind in kinds()}
    assert {name: (code, reason) for name, (code, reason, _) in drawn().items()} == expected


def test_the_tree_is_drawn_with_its_branches() -> None:
    """A class stands below the one that it is derived from."""
    below: dict[int, str] = {0: "MondrianError"}
    lines = re.findall(r"^([│├└─ ]*[├└]── )(\w+)", errors.__doc__ or "", re.MULTILINE)
    for indent, name in lines:
        depth = len(indent) // 4
        below[depth] = name
        kind = getattr(errors, name)
        assert kind.__bases__ == (getattr(errors, below[depth - 1]),)


def test_every_error_stands_in_the_contract_as_it_is() -> None:
    """The table of analysis_service.proto and the classes are the same, both ways."""
    assert {(code, reason) for code, reason, _ in tabled()} == {(kind.code.name, kind.reason) for kind in kinds()}
    assert len(tabled()) == len(list(kinds()))


def test_retries_help_where_the_contract_says_so() -> None:
    """The drawing's last column, the contract's RetryInfo and the codes that clients retry agree."""
    retried = {reason for code, reason, _ in tabled() if code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")}
    assert {reason for _, reason, retry in drawn().values() if retry == "yes"} == retried
    assert {reason for _, reason, meaning in tabled() if "RetryInfo" in meaning} == retried


def test_reasons_are_unique_and_stable_in_form() -> None:
    """A reason names one class, in upper snake case."""
    reasons = [kind.reason for kind in kinds()]
    assert len(set(reasons)) == len(reasons)
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", reason) for reason in reasons)


def test_every_class_says_what_it_means() -> None:
    """Each error has a docstring of its own."""
    for kind in kinds():
        assert kind.__doc__ and kind.__doc__ != MondrianError.__doc__
        assert inspect.getmodule(kind) is errors


@pytest.mark.parametrize("code", Code, ids=lambda code: code.name)
def test_codes_are_those_of_grpc(code: Code) -> None:
    """Name and number are those of `google.rpc.Code`."""
    assert grpc.StatusCode[code.name].value[0] == code.value


def test_an_error_keeps_what_the_caller_is_told() -> None:
    """Message, field and delay are kept; the message is the exception's text."""
    error = errors.TooManyBytes("full", field="config.images", retry_after_s=2.0)
    assert (str(error), error.message, error.field, error.retry_after_s) == ("full", "full", "config.images", 2.0)
    assert errors.InternalError("x").retry_after_s is None


def test_a_startup_error_is_no_callers_error() -> None:
    """What ends `mondrian serve` never becomes a status."""
    assert not issubclass(StartupError, MondrianError)
