"""TOML files: read whole and checked against a model, each fault told in one line with its file and key."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mondrian_server.errors import StartupError

Model = TypeVar("Model", bound=BaseModel)
_SHOWN_CHARACTERS = 60
_SUBJECT = re.compile(r"^\w+ should")
"""How pydantic begins: "Input should be …", "String should match …". The line names its subject already."""


def read_toml(path: Path | str, model: type[Model], *, named_by: str, secret: bool = False) -> Model:
    """Return the file's content as a checked value.

    Raises StartupError with one line for each fault; `named_by` says who named the file. Of a secret file, no line
    shows a value.
    """
    # TOML has types of its own, so nothing is converted: JSON is only the way to pydantic's strict mode that still
    # takes a string for a path and 5 for 5.0. A date becomes an object, which no field takes.
    text = json.dumps(_parse(Path(path), named_by), default=lambda value: {"value": str(value)})
    return checked(
        lambda: model.model_validate_json(text, strict=True), lambda fault: f"{path}: {key(fault)}", secret=secret
    )


def checked(validate: Callable[[], Model], label: Callable[[ErrorDetails], str], *, secret: bool = False) -> Model:
    """Return what `validate` returns, or raise StartupError with one line for each fault, opened by its label."""
    try:
        return validate()
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        # A default that is derived from a refused value is not a fault of its own.
        lines = [
            f"{label(fault)}: {_rule(fault, secret=secret)}"
            for fault in faults
            if fault["type"] != "default_factory_not_called"
        ]
        raise StartupError("\n".join(lines)) from error


def key(fault: ErrorDetails) -> str:
    """Return where in the file the fault is, such as `advisors[0].sampling.top_p`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    return "".join(parts).removeprefix(".") or "the file"


def _parse(path: Path, named_by: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise StartupError(f"{named_by}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StartupError(f"{path}: is not TOML: it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{path}: is not TOML: {error}") from error


def _rule(fault: ErrorDetails, *, secret: bool) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return "there is no such setting"
        case "missing":
            return "is missing"
        case _:
            rule = fault["msg"].removeprefix("Value error, ").partition(", unable")[0]
            value = "" if secret else f", not {_shown(fault['input'])}"
            return _SUBJECT.sub("must", rule) + value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
