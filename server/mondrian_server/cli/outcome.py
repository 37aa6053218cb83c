"""How a client command ends: one line for each error, and the exit code that goes with it."""

import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

import mondrian

FAILED = 1
BAD_INPUT = 2
UNAVAILABLE = 3
DEADLINE = 4
BUSY = 5
CANCELLED = 130

EXIT_CODES = """\b
Exit codes:
  0    it worked
  1    the server failed
  2    bad usage or input: an option, a file, a key or a request that was refused
  3    no server, or it cannot answer at present
  4    the time was over before there was an answer
  5    the server is busy, or the request too large for it
  130  cancelled, by Ctrl-C or by somebody else
"""
"""For the help of every client command."""

_CODES: Mapping[type[mondrian.MondrianError], int] = {
    mondrian.InvalidRequest: BAD_INPUT,
    mondrian.Unauthenticated: BAD_INPUT,
    mondrian.PermissionDenied: BAD_INPUT,
    mondrian.NotFound: BAD_INPUT,
    mondrian.FailedPrecondition: BAD_INPUT,
    mondrian.Unavailable: UNAVAILABLE,
    mondrian.DeadlineExceeded: DEADLINE,
    mondrian.ResourceExhausted: BUSY,
    mondrian.AnalysisCancelled: CANCELLED,
}
_CANCELLED_LINE = "cancelled"
_LOOPBACK = re.compile(r"(127\.[\d.]+|localhost|\[::1\]):\d+")


@contextmanager
def outcome(address: str, *, files: Sequence[str] = (), as_json: bool = False) -> Generator[None]:
    """Turn what the block raises into one line on stderr and an exit code.

    Args:
        address: the server that is asked.
        files: the names of the images, in the order of the request.
        as_json: write the line as a JSON object.

    """
    try:
        yield
    except KeyboardInterrupt:
        end(mondrian.AnalysisCancelled("cancelled"), _CANCELLED_LINE, as_json=as_json)
    except OSError as error:
        if error.filename is None:  # not a file that the user named: a broken pipe is for click
            raise
        line = f"cannot read {error.filename}: {error.strerror}"
        end(mondrian.InvalidRequest(line), line, as_json=as_json)
    except mondrian.MondrianError as error:
        end(error, describe(error, address, files), as_json=as_json)


def describe(error: mondrian.MondrianError, address: str, files: Sequence[str] = ()) -> str:
    """Return the error in one line, in the words of the command line."""
    if isinstance(error, mondrian.ConnectionFailed) and not error.analysis and _LOOPBACK.fullmatch(address):
        return f"no server answers at {address} (start one with `mondrian serve`)"
    if isinstance(error, mondrian.AnalysisCancelled):
        return _CANCELLED_LINE
    parts = [f"{_label(violation.field, files)}{violation.description}" for violation in error.field_violations]
    line = " ".join(("; ".join(parts) or error.message).split())
    if error.retry_after_s is None:
        return line
    return f"{line} (try again in {error.retry_after_s:.3g} s)"


def exit_code(error: mondrian.MondrianError) -> int:
    """Return the exit code for an error."""
    return next((code for cls, code in _CODES.items() if isinstance(error, cls)), FAILED)


def _label(field: str, files: Sequence[str]) -> str:
    """Return what the user calls the field, with a colon: the file or the option; an analysis needs none."""
    image = re.match(r"config\.images\[(\d+)\]", field)
    if image is not None and int(image[1]) < len(files):
        return f"{files[int(image[1])]}: "
    if field == "name":
        return ""
    if field.startswith(("config.images", "request_id")):
        return f"{field.removeprefix('config.')}: "
    last = re.sub(r"\[\d+\]$", "", field).rpartition(".")[2]
    return f"--{last.replace('_', '-')}: " if field.startswith("config.") else f"{field}: "


def end(error: mondrian.MondrianError, line: str, *, as_json: bool) -> NoReturn:
    """Write the line on stderr and exit with the code that goes with the error."""
    tell(error, line, as_json=as_json)
    raise click.exceptions.Exit(exit_code(error)) from None


def tell(error: mondrian.MondrianError, line: str, *, as_json: bool) -> None:
    """Write the line on stderr."""
    click.echo(_as_json(error, line) if as_json else f"mondrian: {line}", err=True)


def _as_json(error: mondrian.MondrianError, line: str) -> str:
    fields = {
        "code": error.code,
        "reason": error.reason,
        "message": line,
        "fieldViolations": [
            {"field": violation.field, "description": violation.description} for violation in error.field_violations
        ],
        "retryAfterSeconds": error.retry_after_s,
        "analysis": error.analysis,
    }
    return json.dumps({"error": fields}, ensure_ascii=False)
