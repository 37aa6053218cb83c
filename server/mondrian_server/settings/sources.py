"""Sources: flags, environment and TOML read in their order of precedence, each fault told with its source."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic_core import ErrorDetails, PydanticUndefined

from mondrian_server.errors import StartupError
from mondrian_server.settings.checks import conflicts, out_of_order
from mondrian_server.settings.fields import Settings
from mondrian_server.toml_files import checked, read_toml

ENVIRONMENT_PREFIX = "MONDRIAN_"
CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
Conflicts: TypeAlias = Callable[[Mapping[str, Any]], Iterator[tuple[str, str]]]
"""Yields each setting that does not go with the others, and what it must be."""

NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "MONDRIAN_ADDRESS", "MONDRIAN_API_KEY", "MONDRIAN_CHANNEL_FD"})
"""Variables with our prefix that are not settings: the file's path, the client's own, a child's descriptor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as people write it. `default` is None where it is empty or worked out at the start."""

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
    values: Settings


def load(
    flags: Mapping[str, str],
    environment: Mapping[str, str] = os.environ,
    *,
    config: str | None = None,
    conflicts: Conflicts = conflicts,
) -> Settings:
    """Return the settings in force: flags over environment over the TOML file over defaults.

    Each source is checked on its own. Raises StartupError with one line for each fault of the first faulty source.

    Args:
        flags: the flags that were given, by the name of their setting.
        environment: the variables; those that do not begin with `MONDRIAN_` are not looked at.
        config: the TOML file given by `--config`; None: the one of `MONDRIAN_CONFIG`, if any.
        conflicts: what must not be set together; by default in a server.

    """
    layers = (_flag_layer(flags), _environment_layer(environment), _file_layer(config, environment))
    given: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for layer in reversed(layers):
        names = layer.values.model_fields_set
        given |= {name: getattr(layer.values, name) for name in names}
        labels |= {name: layer.label(name) for name in names}
    settings = Settings(**given)
    _check_together(settings, labels, conflicts)
    return settings


def describe() -> tuple[Setting, ...]:
    """Return every setting in the order of the fields, for help texts and tables."""
    return tuple(_describe(name) for name in Settings.model_fields)


def _describe(name: str) -> Setting:
    field = Settings.model_fields[name]
    literal = getattr(field.annotation, "__args__", ())
    return Setting(
        name=name,
        flag=_flag(name),
        variable=_variable(name),
        description=field.description or "",
        default=None if field.default is PydanticUndefined else _shown_default(field.default),
        choices=tuple(choice for choice in literal if isinstance(choice, str)),
    )


def _shown_default(value: object) -> str | None:
    if value in ("", None, ()):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _flag_layer(flags: Mapping[str, str]) -> _Layer:
    return _Layer(label=_flag, values=checked(lambda: Settings.model_validate(dict(flags)), _labelled(_flag)))


def _environment_layer(environment: Mapping[str, str]) -> _Layer:
    values = {
        _field_name(name): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS
    }
    label = _labelled(lambda name: name if name.startswith(ENVIRONMENT_PREFIX) else _variable(name))
    return _Layer(label=_variable, values=checked(lambda: Settings.model_validate(values), label))


def _field_name(name: str) -> str:
    """Return the field of a variable, or the variable itself where it is none: `MONDRIAN_Slots` is not a setting."""
    candidate = name.removeprefix(ENVIRONMENT_PREFIX).lower()
    return candidate if _variable(candidate) == name else name


def _file_layer(config: str | None, environment: Mapping[str, str]) -> _Layer:
    path = environment.get(CONFIG_VARIABLE, "") if config is None else config
    named_by = CONFIG_VARIABLE if config is None else "--config"
    values = read_toml(path, Settings, named_by=named_by) if path else Settings()
    return _Layer(label=lambda name: f"{path}: {name}", values=values)


def _labelled(label: Callable[[str], str]) -> Callable[[ErrorDetails], str]:
    return lambda fault: label(str(fault["loc"][0]))


def _check_together(settings: Settings, labels: Mapping[str, str], conflicts: Conflicts) -> None:
    values = settings.model_dump()
    lines = [
        f"{labels.get(low, low)}: must not be greater than {labels.get(high, high)}, "
        f"but {values[low]:,} is greater than {values[high]:,}"
        for low, high in out_of_order(values)
    ]
    lines += [f"{labels.get(name, name)}: {rule}" for name, rule in conflicts(values)]
    if lines:
        raise StartupError("\n".join(lines))
