"""What the system has to bring: programs that tests drive and no package of Python's holds."""

import os
import shutil

import pytest


def installed(*names: str, package: str) -> str:
    """Return the path of the first of these programs that is there.

    Without any, the test is skipped, and on a machine that is to run all (`CI=true`) it fails, naming the package.
    """
    for name in names:
        # Debian keeps servers where an ordinary user's path does not look.
        if path := shutil.which(name) or shutil.which(name, path="/usr/sbin"):
            return path
    missing = f"{names[0]} is not installed: on Debian, `apt-get install {package}`"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(missing)
    pytest.skip(missing)
