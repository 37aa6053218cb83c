"""Vocabulary: what the tokens of a model spell, which ones end the turn, and which stand for media."""

import json
from dataclasses import dataclass
from typing import Any

_MEDIA_NAMES = ("image_token", "video_token", "audio_token", "fake_image_token", "global_image_token")
IMAGE_TOKEN_NAMES = (
    "image_token_id",
    "image_token_index",
    "media_placeholder_token_id",
    "img_context_token_id",
    "image_patch_token_id",
)
"""What configurations call the id that stands for a part of an image."""

_MEDIA_CONFIG = (*IMAGE_TOKEN_NAMES, "video_token_id", "video_token_index", "audio_token_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokens of a model.

    spelling: the bytes of each token, by id; control tokens spell nothing.
    strip_first_space: whether the first token's leading space belongs to the tokeniser and not to the text.
    controls, ends, media: ids of control tokens, of tokens that end the turn, of placeholders and markers of media.
    """

    spelling: tuple[bytes, ...]
    strip_first_space: bool
    controls: frozenset[int]
    ends: frozenset[int]
    media: frozenset[int]

    def spell(self, token: int, *, first: bool = False) -> bytes:
        """Return the bytes of a token; an id beyond the tokeniser's spells nothing."""
        spelled = self.spelling[token] if token < len(self.spelling) else b""
        return spelled.removeprefix(b" ") if first and self.strip_first_space else spelled


def read_vocabulary(processor: Any, config: Any) -> Vocabulary:
    """Read the vocabulary of a loaded mlx-vlm processor and model configuration."""
    tokenizer = getattr(processor, "tokenizer", processor)
    added = {int(i): token for i, token in tokenizer.added_tokens_decoder.items()}
    controls = {i for i, token in added.items() if token.special} | {int(i) for i in tokenizer.all_special_ids}
    decoder = _decoder(tokenizer)
    pieces: list[str | None] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    spell = _spell_byte_level if "ByteLevel" in decoder else _spell_sentencepiece
    spelling = [spell(piece or "") for piece in pieces]
    for i, token in added.items():
        if i < len(spelling):
            spelling[i] = token.content.encode()
    for i in controls:
        if i < len(spelling):
            spelling[i] = b""
    return Vocabulary(
        spelling=tuple(spelling),
        strip_first_space='"Strip"' in decoder,
        controls=frozenset(controls),
        ends=frozenset(int(i) for i in tokenizer.stopping_criteria.eos_token_ids),
        media=frozenset(_media_ids(processor, tokenizer, config)),
    )


def _decoder(tokenizer: Any) -> str:
    """Return the tokeniser's decoder as JSON, empty where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: bytes = b"" if backend is None or backend.decoder is None else backend.decoder.__getstate__()
    return json.dumps(json.loads(state), separators=(",", ":")) if state else ""


def _media_ids(processor: Any, tokenizer: Any, config: Any) -> set[int]:
    named = [getattr(owner, name, None) for owner in (processor, tokenizer) for name in _MEDIA_NAMES]
    known: dict[str, int] = tokenizer.get_vocab()
    ids = {known[name] for name in named if isinstance(name, str) and name in known}
    ids |= {value for name in _MEDIA_CONFIG if isinstance(value := getattr(config, name, None), int)}
    return ids


def _byte_of() -> dict[str, int]:
    """Return GPT-2's map from the printable stand-ins of byte-level vocabularies to bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_of()


def _spell_byte_level(piece: str) -> bytes:
    if all(character in _BYTE_OF for character in piece):
        return bytes(_BYTE_OF[character] for character in piece)
    return piece.encode()


def _spell_sentencepiece(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()
