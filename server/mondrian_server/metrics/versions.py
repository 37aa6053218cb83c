"""Versions: what runs, as far as it explains how it runs."""

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version


def versions() -> Mapping[str, str]:
    """Return the versions of Mondrian, of Python, and of the libraries that do the work; empty: not installed."""
    libraries = {name.replace("-", "_"): _version(name) for name in ("mlx", "mlx-vlm", "grpcio")}
    return {"version": _version("mondrian-vision"), "python": sys.version.partition(" ")[0], **libraries}


def _version(distribution: str) -> str:
    """Return a version; a gateway needs no MLX, and a checkout on the path is no distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
