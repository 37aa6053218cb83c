"""Writes docs/settings.md from the settings' own descriptions, and checks that it is up to date."""

import argparse
import sys
from pathlib import Path

from mondrian_server.settings import Setting, describe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Every setting of `mondrian serve`: a flag (`--grpc-address`), a variable (`MONDRIAN_GRPC_ADDRESS`) or a key of the TOML
file that `--config` or `MONDRIAN_CONFIG` names (`grpc_address`). A flag counts before a variable, a variable before the
file, the file before the default. Names carry their unit. What is unknown or out of range ends `serve` with one line
that says where it stands. Written by `make settings`.

| setting | default | meaning |
|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return HEAD + "".join(row(setting) for setting in describe())


def row(setting: Setting) -> str:
    """Return a setting's row of the table."""
    default = "" if setting.default is None else f"`{setting.default}`{in_mebibytes(setting)}"
    choices = f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}." if setting.choices else ""
    return f"| `{setting.name}` | {default} | {' '.join(setting.description.split())}{choices} |\n"


def in_mebibytes(setting: Setting) -> str:
    """Return a count of bytes in MiB, in brackets; nothing for other settings."""
    return f" ({int(setting.default or 0) / 2**20:,.0f} MiB)" if setting.name.endswith("_bytes") else ""


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["generate", "check"])
    if parser.parse_args().action == "generate":
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        print(
            "docs/settings.md is not what the settings say: run `make settings` and commit the result", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
