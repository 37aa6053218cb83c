"""Sources: flags, environment and TOML read in their order of precedence, each fault told with its source."""

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticUndefined

from mondrian_server.errors import StartupError
from mondrian_server.settings.checks import out_of_order
from mondrian_server.settings.fields import Settings

ENVIRONMENT_PREFIX = "MONDRIAN_"
CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "MONDRIAN_ADDRESS", "MONDRIAN_CHANNEL_FD"})
"""Variables with our prefix that are not settings: the file's path, the client's address, a child's descriptor."""
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as people write it. `default` is None where it is worked out at the start."""

    name: str
    flag: str
    variable: str
    description: str
    default: str | None
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """The values of one source; `label` gives the name of a setting as it stands there."""

    label: Callable[[str], str]
    validated: Settings


def load(
    flags: Mapping[str, str], environment: Mapping[str, str] = os.environ, *, config: str | None = None
) -> Settings:
    """Return the settings in force: flags over environment over the TOML file over defaults.

    Raises StartupError with one line for each fault.

    Args:
        flags: the flags that were given, by the name of their setting.
        environment: the variables; those that do not begin with `MONDRIAN_` are not looked at.
        config: the TOML file given by `--config`; None: the one of `MONDRIAN_CONFIG`, if any.
    """
    path, named_by = _config_path(config, environment)
    layers = [_flag_layer(flags), _environment_layer(environment)]
    if path:
        layers.append(_file_layer(path, named_by))
    given: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for layer in reversed(layers):
        names = layer.validated.model_fields_set
        given |= {name: getattr(layer.validated, name) for name in names}
        labels |= {name: layer.label(name) for name in names}
    settings = Settings(**given)
    _check_together(settings, labels)
    return settings


def describe() -> tuple[Setting, ...]:
    """Return every setting in the order of the fields, for help texts and tables."""
    return tuple(_describe(name) for name in Settings.model_fields)


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def _describe(name: str) -> Setting:
    field = Settings.model_fields[name]
    literal = getattr(field.annotation, "__args__", ())
    return Setting(
        name=name,
        flag=flag(name),
        variable=variable(name),
        description=field.description or "",
        default=None if field.default is PydanticUndefined else _shown_default(field.default),
        choices=tuple(choice for choice in literal if isinstance(choice, str)),
    )


def _shown_default(value: object) -> str | None:
    if value in ("", None):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _config_path(config: str | None, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the TOML file's path, empty where there is none, and what named it."""
    if config is not None:
        return config, "--config"
    return environment.get(CONFIG_VARIABLE, ""), CONFIG_VARIABLE


def _flag_layer(flags: Mapping[str, str]) -> _Layer:
    return _layer(flag, lambda: Settings.model_validate(dict(flags)))


def _environment_layer(environment: Mapping[str, str]) -> _Layer:
    values = {
        _field_name(name): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS
    }
    return _layer(_variable_label, lambda: Settings.model_validate(values))


def _field_name(name: str) -> str:
    """Return the field of a variable, or the variable itself where it is none: `MONDRIAN_Slots` is not a setting."""
    candidate = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    return candidate if variable(candidate) == name else name


def _variable_label(name: str) -> str:
    return name if name.startswith(ENVIRONMENT_PREFIX) else variable(name)


def _file_layer(path: str, named_by: str) -> _Layer:
    # TOML has types of its own, so nothing is converted: JSON is only the way to pydantic's strict mode that still
    # takes a string for a path and 5 for 5.0. A date becomes an object, which no setting takes.
    text = json.dumps(_read_toml(path, named_by), default=lambda value: {"value": str(value)})
    return _layer(lambda name: f"{path}: {name}", lambda: Settings.model_validate_json(text, strict=True))


def _read_toml(path: str, named_by: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise StartupError(f"{named_by}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StartupError(f"{path}: is not TOML: it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{path}: is not TOML: {error}") from error


def _layer(label: Callable[[str], str], validate: Callable[[], Settings]) -> _Layer:
    try:
        return _Layer(label=label, validated=validate())
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        # A default that is derived from a refused setting is not a fault of its own.
        lines = [_line(label, fault) for fault in faults if fault["type"] != "default_factory_not_called"]
        raise StartupError("\n".join(lines)) from error


def _line(label: Callable[[str], str], fault: ErrorDetails) -> str:
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"{label(name)}: there is no such setting{_suggestion(label, name)}"
    rule = fault["msg"].removeprefix("Value error, ").replace("Input should", "must", 1).partition(", unable")[0]
    return f"{label(name)}: {rule}, not {_shown(fault['input'])}"


def _suggestion(label: Callable[[str], str], name: str) -> str:
    candidate = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    close = difflib.get_close_matches(candidate, Settings.model_fields, n=1)
    return f"; did you mean {label(close[0]).rpartition(': ')[2]}?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _check_together(settings: Settings, labels: Mapping[str, str]) -> None:
    values = settings.model_dump()
    lines = [
        f"{labels.get(low, low)}: must not be greater than {labels.get(high, high)}, "
        f"but {values[low]:,} is greater than {values[high]:,}"
        for low, high in out_of_order(values)
    ]
    if lines:
        raise StartupError("\n".join(lines))
