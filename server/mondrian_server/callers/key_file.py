"""The key file: read whole, checked, and turned into entries that can be looked up.

[callers.phone-app]
max_requests_per_minute = 600

[[callers.phone-app.keys]]
id = "3f9a0c1d22b4"
created = "2026-11-20T18:20:00Z"
salt = "…"
hash = "…"
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mondrian_server.callers.keys import DIGEST_BYTES, SALT_BYTES, Proof
from mondrian_server.callers.limits import CallerLimits
from mondrian_server.callers.tables import CallerTable, KeyFileTable, KeyTable
from mondrian_server.errors import StartupError
from mondrian_server.toml_files import read_toml

MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key in the file."""

    caller: str
    proof: Proof
    created: datetime
    revoked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntries:
    """The content of a key file: its keys by id, and the limits that are a caller's own."""

    keys: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    limits: Mapping[str, CallerLimits] = field(default_factory=dict[str, CallerLimits])


def read_key_file(path: Path) -> KeyEntries:
    """Return the file's content; raises StartupError with one line for each fault, none of which repeats a hash."""
    _check_writers(path)
    tables = read_toml(path, KeyFileTable, named_by="keys_file", secret=True).callers
    faults = list(_faults(tables))
    if faults:
        raise StartupError("\n".join(f"{path}: {fault}" for fault in faults))
    return KeyEntries(
        keys={key.id: _entry(name, key) for name, table in tables.items() for key in table.keys},
        limits={name: CallerLimits(**table.model_dump(exclude={"keys"})) for name, table in tables.items()},
    )


def is_readable_by_others(path: Path) -> bool:
    """Return whether others than its owner may read the file."""
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def is_caller_name(name: str) -> bool:
    """Return whether a name can be a caller's: 1 to 64 printable characters, none of them at an end a space."""
    return 0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() and name == name.strip()


def _check_writers(path: Path) -> None:
    """Refuse a file in which others could enter a key of their own."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise StartupError(f"keys_file: {path} cannot be read: {_reason(error)}") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartupError(f"keys_file: {path} can be written by others than its owner; chmod 600 it")


def _reason(error: OSError) -> str:
    missing = isinstance(error, FileNotFoundError)
    hint = " (`mondrian keys add` makes it)" if missing else ""
    return f"{os.strerror(error.errno) if error.errno else error}{hint}"


def _faults(tables: Mapping[str, CallerTable]) -> Iterator[str]:
    seen: set[str] = set()
    for name, table in tables.items():
        if not is_caller_name(name):
            yield f"callers: a name must have 1 to {MAX_NAME_CHARACTERS} printable characters"
        for index, key in enumerate(table.keys):
            where = f"callers.{name}.keys[{index}]"
            if key.id in seen:
                yield f"{where}.id: is there twice"
            seen.add(key.id)
            if len(_from_hex(key.salt)) < SALT_BYTES:
                yield f"{where}.salt: must be {SALT_BYTES} bytes or more in hexadecimal"
            if len(_from_hex(key.hash)) != DIGEST_BYTES:
                yield f"{where}.hash: must be {DIGEST_BYTES} bytes in hexadecimal"


def _entry(caller: str, key: KeyTable) -> Entry:
    proof = Proof(salt=_from_hex(key.salt), digest=_from_hex(key.hash))
    return Entry(caller=caller, proof=proof, revoked=key.revoked, created=key.created)


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
