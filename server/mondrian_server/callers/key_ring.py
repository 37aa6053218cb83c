"""The key ring: the keys that are in force, taken from the key file again whenever it changes."""

import asyncio
from pathlib import Path
from typing import Self

import structlog

from mondrian_server.callers.key_file import is_readable_by_others, read_key_file
from mondrian_server.callers.keys import Key, Proof
from mondrian_server.callers.limits import CallerLimits
from mondrian_server.errors import KeyRevoked, StartupError, Unauthenticated
from mondrian_server.file_watch import FileWatch

_log = structlog.stdlib.get_logger(__name__)


class KeyRing:
    """Who the bearer of a key is, and a caller's own limits. For use on one event loop."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises StartupError with one line for each fault."""
        self._path = path
        # Compared with where no key has the id, so that this answer takes as long as the one to a wrong secret.
        self._nobody = Proof.of(Key.make())
        self._watch = FileWatch([path])
        self._entries = read_key_file(path)
        if is_readable_by_others(path):
            _log.warning("the key file can be read by others than its owner; chmod 600 it", file=str(path))

    @classmethod
    def open(cls, path: Path | None) -> Self | None:
        """Return the ring of a key file, or None where the server has none; raises StartupError."""
        return None if path is None else cls(path)

    def identify(self, text: str) -> str:
        """Return the caller whose key this is.

        Raises:
            Unauthenticated: it is nobody's.
            KeyRevoked: it was somebody's.

        """
        key = Key.parse(text)
        if key is None:
            raise Unauthenticated("what was sent is no API key; keys begin with mondrian_")
        entry = self._entries.keys.get(key.id)
        matches = (entry.proof if entry else self._nobody).holds_for(key)
        if entry is None or not matches:
            raise Unauthenticated("the API key is not known here")
        if entry.revoked:
            raise KeyRevoked("the API key has been revoked")
        return entry.caller

    def limits(self, caller: str) -> CallerLimits:
        """Return the limits that are the caller's own; one that comes by certificate may have an entry too."""
        return self._entries.limits.get(caller, CallerLimits())

    async def run(self) -> None:
        """Take the file's keys again whenever it changes, until cancelled; a broken file changes nothing."""
        while True:
            await self._watch.changed()
            await self._reload()

    async def _reload(self) -> None:
        try:
            self._entries = await asyncio.to_thread(read_key_file, self._path)
        except StartupError as error:
            problem = str(error).replace("\n", "; ")
            _log.error("the key file cannot be used; the keys read before stay in force", problem=problem)
        else:
            _log.info("keys reloaded", callers=len(self._entries.limits), keys=len(self._entries.keys))
