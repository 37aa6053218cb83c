"""Editing: adds keys to the key file and revokes them, and leaves everything else in it as it stands."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock
from tomlkit.exceptions import TOMLKitError

from mondrian_server.callers.key_file import is_caller_name, read_key_file
from mondrian_server.callers.keys import Key, Proof
from mondrian_server.callers.limits import CallerLimits
from mondrian_server.errors import StartupError

OWNER_ONLY = 0o600
LOCK_TIMEOUT_S = 10.0
_HEADING = "The callers of a Mondrian server, and the hashes of their keys; see `mondrian keys --help`."


def add_key(path: Path, caller: str, limits: CallerLimits) -> Key:
    """Give a caller a new key, and the limits that are not None, and return the key: the file does not hold it.

    The file is made where there is none, for its owner only. Raises StartupError where it cannot be used.
    """
    if not is_caller_name(caller):
        raise StartupError("a caller's name must have 1 to 64 printable characters")
    key = Key.make()
    with _edited(path) as document:
        table = _table(_table(document, "callers", is_super=True), caller)
        for name, value in _given(limits).items():
            table[name] = value
        keys = table.setdefault("keys", tomlkit.aot())
        keys.append(_entry(key))
    return key


def revoke_keys(path: Path, name: str) -> list[str]:
    """Revoke the key with this id, or every key of the caller with this name; return the ids of those revoked now.

    Raises StartupError where there is no such key or caller, or the file cannot be used.
    """
    revoked: list[str] = []
    found = False
    with _edited(path) as document:
        for caller, table in document.get("callers", {}).items():
            for entry in table.get("keys", ()):
                if name in (caller, entry["id"]):
                    found = True
                    if not entry.get("revoked"):
                        entry["revoked"] = True
                        revoked.append(str(entry["id"]))
        if not found:
            raise StartupError(f"{path} has no key and no caller with keys that is called {name[:64]!r}")
    return revoked


@contextlib.contextmanager
def _edited(path: Path) -> Generator[Any]:
    """Give the file's content to edit; the new content takes its place at once, if the block does not raise."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_TIMEOUT_S, mode=OWNER_ONLY):
            document: Any = _document(path)
            yield document
            _replace(path, tomlkit.dumps(document))
    except TimeoutError as error:
        raise StartupError(f"keys_file: {path} is being edited by another program") from error
    except OSError as error:
        raise StartupError(f"keys_file: {path} cannot be written: {os.strerror(error.errno or 0)}") from error


def _document(path: Path) -> Any:
    if not path.exists():
        return tomlkit.document().add(tomlkit.comment(_HEADING))
    read_key_file(path)  # What is broken is told, and not made worse.
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8"))
    except TOMLKitError as error:
        raise StartupError(f"{path}: is not TOML: {error}") from error


def _replace(path: Path, text: str) -> None:
    target = path.resolve()  # A link stays one.
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)  # mkstemp makes it for its owner only.
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if target.exists():
                _take_over(target.stat(), descriptor)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _take_over(old: os.stat_result, descriptor: int) -> None:
    """Give the new file the old one's owner and mode: the server may run as somebody else than the operator."""
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _table(parent: Any, name: str, *, is_super: bool = False) -> Any:
    if name not in parent:
        table: Any = tomlkit.table(is_super_table=is_super)
        table.trivia.indent = "" if is_super else "\n"
        parent[name] = table
    return parent[name]


def _entry(key: Key) -> Any:
    proof = Proof.of(key)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry: Any = tomlkit.table()
    # `revoked` stands there from the start: it is changed in its place, with the comments around it.
    entry.update(id=key.id, created=created, salt=proof.salt.hex(), hash=proof.digest.hex(), revoked=False)
    entry.trivia.indent = "\n"
    return entry


def _given(limits: CallerLimits) -> dict[str, int]:
    names = CallerLimits.__dataclass_fields__
    return {name: value for name in names if (value := getattr(limits, name)) is not None}
