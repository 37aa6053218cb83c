"""Generates the Python stubs from protos/, and checks that protos and stubs are in order.

Runs in .venv-proto: `make proto` and `make check` see to that.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.api import annotations_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
STUBS = ROOT / "clients" / "python"
BIN = Path(sys.executable).parent


def generate(target: Path) -> None:
    """Write the stubs of every proto of ours under `target`."""
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"--plugin={BIN / plugin}" for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")),
            *(f"--proto_path={PROTOS}", f"--proto_path={google_protos().parent}"),
            *(f"--{output}_out={target}" for output in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *(str(path) for path in sorted(PROTOS.rglob("*.proto"))),
        ],
        check=True,
        capture_output=True,
    )


def google_protos() -> Path:
    """Return the folder `google` that googleapis-common-protos installed: it holds api/ and rpc/."""
    return Path(annotations_pb2.__file__).parents[1]


def stub_differences() -> list[str]:
    """Return a line for each committed stub that is not what the protos give."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        names = stub_names(fresh) | stub_names(STUBS)
        stale = sorted(name for name in names if differ(fresh / name, STUBS / name))
        return [f"clients/python/{name} is not what protos/ gives" for name in stale]


def stub_names(root: Path) -> set[Path]:
    """Return the paths of all stubs under `root`, relative to it."""
    return {path.relative_to(root) for kind in ("*_pb2*.py", "*_pb2*.pyi") for path in root.rglob(kind)}


def differ(one: Path, other: Path) -> bool:
    """Tell whether two files differ, a missing one included."""
    return not (one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False))


def lint() -> list[str]:
    """Return what buf finds in style, comments and formatting."""
    with tempfile.TemporaryDirectory() as folder:
        # buf must see Google's files too, and cannot be told to look into a Python package: a copy of both.
        copy = Path(folder) / "protos"
        shutil.copytree(PROTOS, copy)
        only_protos = shutil.ignore_patterns("*.py*")
        for package in ("api", "rpc"):
            shutil.copytree(google_protos() / package, copy / "google" / package, ignore=only_protos)
        style = buf("lint", cwd=copy)
    return style + buf("format", "--diff", "--exit-code", cwd=PROTOS)


def buf(*arguments: str, cwd: Path) -> list[str]:
    """Run buf and return what it complains about."""
    done = subprocess.run([BIN / "buf", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return (lines or ["buf failed without a word"]) if done.returncode else []


def check() -> int:
    """Print what is out of order and return the exit status."""
    complaints = lint()
    if drift := stub_differences():
        complaints += [*drift, "run `make proto` and commit the result"]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["generate", "check"])
    if parser.parse_args().action == "check":
        return check()
    generate(STUBS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
