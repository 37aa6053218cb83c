"""The byte-level BPE tokenizer: learned from the corpus that the model is asked and answers."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mondrian_tiny.shape import SPECIAL_TOKENS, VOCABULARY


def learn(corpus: Iterable[str]) -> Tokenizer:
    """Learn a vocabulary; all 256 bytes are in it, so that any UTF-8 text encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def load(path: Path) -> Tokenizer:
    """Read `tokenizer.json` from a model folder."""
    return Tokenizer.from_file(str(path / "tokenizer.json"))
