"""Checks what git holds: no machine's path, no address of an index, nothing too large, no name without a role."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST_BYTES = 10_000_000
LONGEST_MODULE_LINES = 500
REQUIRED = ("CHANGELOG.md", "LICENSE", "README.md")
UNWANTED_NAMES = {"uv.lock", "utils.py", "helpers.py", "common.py", "misc.py"}
# Written so that this file does not match itself.
UNWANTED_TEXT = {
    "a path of somebody's machine": re.compile(r"(?<![\w.$~}])/(?:home|root|Users|work|opt|tmp)/\w"),
    "the address of a package index": re.compile(
        r"index[-]url[ =][\"']?(?:https?:|file:|/)|\b(?:pypi|pythonhosted)[.]org|/simple[/\"']"
    ),
}


def tracked() -> list[Path]:
    """Return the paths of all tracked files, relative to the root."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in names.split("\0") if name and (ROOT / name).is_file()]


def complaints(files: list[Path]) -> Iterator[str]:
    """Yield a line for each thing that should not be."""
    for name in REQUIRED:
        if Path(name) not in files:
            yield f"{name} is missing"
    for file in files:
        if file.name in UNWANTED_NAMES:
            yield f"{file}: a name that says no role"
        if (ROOT / file).stat().st_size > LARGEST_BYTES:
            yield f"{file}: larger than {LARGEST_BYTES} bytes"
        yield from text_complaints(file)


def text_complaints(file: Path) -> Iterator[str]:
    """Yield what is wrong with a text file's length and lines; other files have neither."""
    try:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    if file.suffix == ".py" and "_pb2" not in file.name and len(lines) > LONGEST_MODULE_LINES:
        yield f"{file}: {len(lines)} lines; a module has at most {LONGEST_MODULE_LINES}"
    for number, line in enumerate(lines, start=1):
        for what, pattern in UNWANTED_TEXT.items():
            if pattern.search(line):
                yield f"{file}:{number}: {what}: {line.strip()[:100]}"


def main() -> int:
    """Print what should not be and return the exit status."""
    found = list(complaints(tracked()))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
