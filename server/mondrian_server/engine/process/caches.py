"""Caches: picture features and prompt prefixes, each seen only by the scope that filled it."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from mondrian_server.engine.process.mlx_internals import open_prefix_manager

_BLOCK_TOKENS = 8
"""Only whole blocks are shared, and what several questions about a small picture share is some 25 tokens."""

_MOST_BLOCKS = 2048  # mlx-vlm 0.7.10 walks through all of them several times for each prompt.


class FeatureCache:
    """The most recently used results of encoding, by scope and digest."""

    def __init__(self, entries: int):
        """Keep at most `entries` results; 0 keeps none."""
        self._entries = entries
        self._features: OrderedDict[tuple[str, bytes], Any] = OrderedDict()

    def get(self, scope: str, digest: bytes) -> Any | None:
        """Return what this scope encoded before."""
        key = (scope, digest)
        if key in self._features:
            self._features.move_to_end(key)
        return self._features.get(key)

    def put(self, scope: str, digest: bytes, features: Any) -> None:
        """Keep what was encoded."""
        self._features[scope, digest] = features
        self._features.move_to_end((scope, digest))
        while len(self._features) > self._entries:
            self._features.popitem(last=False)


def open_prefix_cache(size_bytes: int, bytes_per_token: int) -> Any | None:
    """Return mlx-vlm's automatic prefix cache, or None where it is turned off or nothing fits."""
    blocks = size_bytes // max(1, bytes_per_token * _BLOCK_TOKENS)
    if blocks < 1:
        return None
    os.environ["APC_HASH"] = "sha256"  # mlx-vlm 0.7.10 reads it here only; its default can be made to collide.
    gigabytes = size_bytes / (1 << 30)
    return open_prefix_manager(
        num_blocks=min(blocks, _MOST_BLOCKS), block_size=_BLOCK_TOKENS, overrides={"memory_max_gb": gigabytes}
    )


def prefix_salt(scope: str, digests: Sequence[bytes]) -> int:
    """Return what keeps prefixes of other scopes and other pictures apart: 63 bits of a SHA-256."""
    digest = hashlib.sha256(len(scope).to_bytes(4, "little") + scope.encode())
    for picture in digests:
        digest.update(picture)
    return int.from_bytes(digest.digest()[:8], "little") >> 1
