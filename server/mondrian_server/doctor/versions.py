"""Versions: what is installed, and whether it is what the engine was written for."""

import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from mondrian_server.doctor.finding import Finding, ok, problem

CHECK = "versions"
INSTALL = "install the server: pip install 'mondrian-vision[server]'"
_OURS = "mondrian-vision"
_SHOWN = (_OURS, "mlx", "mlx-vlm", "transformers", "grpcio", "protobuf")
_PINNED = "mlx-vlm"


def find_versions() -> Finding:
    """Return the versions of what does the work; a problem where one is missing, or is not the pinned one."""
    try:
        found = {name: version(name) for name in _SHOWN}
    except PackageNotFoundError as error:
        return problem(CHECK, f"{error.name} is not installed", INSTALL)
    pinned = _pinned()
    if pinned is not None and found[_PINNED] != pinned:
        text = f"{_PINNED} {found[_PINNED]} is installed; the engine needs {pinned}, whose private parts it uses"
        return problem(CHECK, text, f"pip install '{_PINNED}=={pinned}'")
    python = sys.version.partition(" ")[0]
    return ok(CHECK, ", ".join([f"python {python}", *(f"{name} {number}" for name, number in found.items())]))


def _pinned() -> str | None:
    """Return the one version of mlx-vlm that this distribution names, or None where it names a range."""
    for requirement in requires(_OURS) or ():
        exact = re.match(rf"{_PINNED}\s*==\s*([\w.]+)", requirement)
        if exact is not None:
            return exact[1]
    return None
