"""Writes the pages of docs/ that the code already says, settings and modules, and checks that they are up to date."""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from mondrian_server.settings import Setting, describe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "clients" / "python" / "mondrian", ROOT / "server" / "mondrian_server")
SETTINGS_HEAD = """# Settings

Every setting of `mondrian serve`: a flag (`--grpc-address`), a variable (`MONDRIAN_GRPC_ADDRESS`) or a key of the TOML
file that `--config` or `MONDRIAN_CONFIG` names (`grpc_address`). A flag counts before a variable, a variable before the
file, the file before the default. Names carry their unit. What is unknown or out of range ends `serve` with one line
that says where it stands. Written by `make pages`.

| setting | default | meaning |
|---|---|---|
"""
MODULES_HEAD = """# Modules

What each module is for, in its own first line. How they work together stands in [architecture.md](architecture.md).
Written by `make pages`.
"""


def pages() -> dict[Path, str]:
    """Return the pages by their paths."""
    docs = ROOT / "docs"
    return {
        docs / "settings.md": SETTINGS_HEAD + "".join(setting_row(setting) for setting in describe()),
        docs / "modules.md": MODULES_HEAD + "".join(module_lines()),
    }


def setting_row(setting: Setting) -> str:
    """Return a setting's row of the table."""
    default = "" if setting.default is None else f"`{setting.default}`{in_mebibytes(setting)}"
    choices = f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}." if setting.choices else ""
    return f"| `{setting.name}` | {default} | {' '.join(setting.description.split())}{choices} |\n"


def in_mebibytes(setting: Setting) -> str:
    """Return a count of bytes in MiB, in brackets; nothing for other settings, and for 0."""
    count = int(setting.default or 0) if setting.name.endswith("_bytes") else 0
    return f" ({count / 2**20:,.0f} MiB)" if count else ""


def module_lines() -> Iterator[str]:
    """Yield a heading for each package and a line for each of its modules."""
    for package in PACKAGES:
        for folder in sorted({path.parent for path in package.rglob("*.py")}):
            yield f"\n## {'.'.join(folder.relative_to(package.parent).parts)}\n\n{role(folder / '__init__.py')}\n"
            modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
            lines = [f"- `{path.stem}`: {role(path)}\n" for path in modules if "_pb2" not in path.name]
            if lines:
                yield "\n" + "".join(lines)


def role(module: Path) -> str:
    """Return the first line of a module's docstring, which says its role."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["generate", "check"])
    generates = parser.parse_args().action == "generate"
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if generates:
            path.write_text(pages()[path], encoding="utf-8")
        else:
            print(
                f"docs/{path.name} is not what the code says: run `make pages` and commit the result", file=sys.stderr
            )
    return 1 if stale and not generates else 0


if __name__ == "__main__":
    sys.exit(main())
