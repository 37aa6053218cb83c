"""Keys: random tokens, of which the server keeps a salted hash.

A key is `mondrian_ID_SECRET`. The id finds the entry in the key file; the secret, 192 random bits, proves the caller.
So much randomness cannot be guessed from its hash, and a fast hash is enough: a slow one would let strangers keep the
server busy.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Self

PREFIX = "mondrian"
ID_BYTES = 6
SECRET_BYTES = 24
SALT_BYTES = 16
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key in its parts. The secret is not shown."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """Return a new random key."""
        return cls(id=secrets.token_hex(ID_BYTES), secret=secrets.token_hex(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> "Self | None":
        """Return the parts of a key as it is sent, or None where it has not the form of one."""
        prefix, _, rest = text.partition("_")
        id_, _, secret = rest.partition("_")
        if prefix != PREFIX or not _is_hex(id_, ID_BYTES) or not _is_hex(secret, SECRET_BYTES):
            return None
        return cls(id=id_, secret=secret)

    @property
    def text(self) -> str:
        """The key as it is sent."""
        return f"{PREFIX}_{self.id}_{self.secret}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the key file keeps of a key: enough to recognise it, too little to make it."""

    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, key: Key) -> Self:
        """Return the proof of a key, with a salt of its own."""
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(salt=salt, digest=_digest(salt, key))

    def holds_for(self, key: Key) -> bool:
        """Return whether this is the key, in a time that tells nothing of how near it comes."""
        return hmac.compare_digest(self.digest, _digest(self.salt, key))


def _digest(salt: bytes, key: Key) -> bytes:
    return hashlib.sha256(salt + key.text.encode()).digest()


def _is_hex(text: str, length_bytes: int) -> bool:
    return len(text) == 2 * length_bytes and all(character in "0123456789abcdef" for character in text)
