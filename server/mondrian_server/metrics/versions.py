"""Versions: what runs, as far as it explains how it runs."""

import sys
from collections.abc import Mapping
from importlib.metadata import version


def versions() -> Mapping[str, str]:
    """Return the versions of Mondrian, of Python, and of the libraries that do the work."""
    libraries = {name.replace("-", "_"): version(name) for name in ("mlx", "mlx-vlm", "grpcio")}
    return {"version": version("mondrian-vision"), "python": sys.version.partition(" ")[0], **libraries}
