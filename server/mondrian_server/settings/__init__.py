"""Settings: the only reader of flags, environment (`MONDRIAN_*`) and TOML.

Precedence: flags, then environment, then the TOML file (`--config FILE` or `MONDRIAN_CONFIG`), then defaults.
Unknown names and mistyped values are refused at the start, each in one line that names its source.
"""

from mondrian_server.settings.checks import conflicts_of_gateway
from mondrian_server.settings.embedded import embedded_model, embedded_page
from mondrian_server.settings.fields import Settings
from mondrian_server.settings.sources import ENVIRONMENT_PREFIX, Setting, describe, load

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Setting",
    "Settings",
    "conflicts_of_gateway",
    "describe",
    "embedded_model",
    "embedded_page",
    "load",
]
