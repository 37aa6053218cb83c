"""Tokens spell the bytes that their tokeniser decodes them to."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mondrian_server.engine.process.vocabulary import Vocabulary, read_vocabulary
from tests.checkpoints import EMBEDDED

_AUTO: Any = AutoTokenizer  # Typed Any: transformers leaves most of its parameters open.
_FAST: Any = PreTrainedTokenizerFast


def _read(tokenizer: Any, **config: int) -> Vocabulary:
    tokenizer.stopping_criteria = SimpleNamespace(eos_token_ids=[tokenizer.eos_token_id])
    return read_vocabulary(tokenizer, SimpleNamespace(**config))


def _spelled(vocabulary: Vocabulary, ids: list[int]) -> bytes:
    return b"".join(vocabulary.spell(i, first=n == 0) for n, i in enumerate(ids))


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """The embedded model's tokeniser."""
    return _AUTO.from_pretrained(EMBEDDED)


def _sentencepiece() -> Any:
    """A tokeniser of Llama's kind: `▁` for spaces, bytes as `<0xXX>`, a space before the first word."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁red", "circle", "▁and", "é"]
    backend = Tokenizer(models.BPE(vocab={piece: n for n, piece in enumerate(pieces)}, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _FAST(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def test_byte_level_tokens_spell_what_the_tokeniser_decodes(byte_level: Any) -> None:
    """Any sequence of tokens, valid text or not, spells the bytes that the tokeniser decodes."""
    vocabulary, chance = _read(byte_level), random.Random(1)
    for _ in range(200):
        ids = chance.choices(range(len(byte_level)), k=12)
        decoded: str = byte_level.decode(ids, skip_special_tokens=True)
        assert _spelled(vocabulary, ids).decode(errors="replace") == decoded


def test_sentencepiece_tokens_spell_what_the_tokeniser_decodes() -> None:
    """Spaces stand where they belong, the first one aside, and byte tokens are bytes."""
    tokenizer = _sentencepiece()
    vocabulary, known = _read(tokenizer), tokenizer.get_vocab()
    for pieces in (["▁red", "circle", "▁and"], ["circle", "▁", "▁red"], ["▁red", "<0xC3>", "<0xA9>", "é"]):
        ids = [known[piece] for piece in pieces]
        assert _spelled(vocabulary, ids).decode() == tokenizer.decode(ids)


def test_control_tokens_spell_nothing(byte_level: Any) -> None:
    """The end of a turn and its like are no text."""
    vocabulary = _read(byte_level)
    assert len(vocabulary.controls) >= 6
    assert all(vocabulary.spell(i) == b"" for i in vocabulary.controls)


def test_ids_beyond_the_tokeniser_spell_nothing(byte_level: Any) -> None:
    """A model's vocabulary may be padded beyond its tokeniser's."""
    assert _read(byte_level).spell(10**6) == b""


def test_media_ids_come_from_the_model_and_its_processor(byte_level: Any) -> None:
    """Placeholders that the configuration names are media, and so are the markers around them."""
    names = ("<image>", "<fake_token_around_image>", "<global-img>")
    vocabulary = _read(byte_level, image_token_id=77)
    assert {byte_level.convert_tokens_to_ids(name) for name in names} | {77} == vocabulary.media
