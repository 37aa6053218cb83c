"""Small tokenisers in the ways of several architectures, with their control tokens and chat templates."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.checkpoints import EMBEDDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How an architecture's tokeniser spells, its control tokens, and added tokens that count as plain ones."""

    sentencepiece: bool
    controls: tuple[str, ...]
    plain: tuple[str, ...] = ()
    names: Mapping[str, str]
    template: str
    turn: str
    picture: str

    def tokeniser(self) -> dict[str, Any]:
        """Return the contents of `tokenizer.json`."""
        return _sentencepiece(self) if self.sentencepiece else _byte_level(self)


_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
QWEN = Spelling(
    sentencepiece=False,
    controls=(
        "<|endoftext|>",
        "<|im_start|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<|im_end|>",
    ),
    plain=("<think>", "</think>"),
    names={"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
    template=_CHATML,
    turn="<|im_start|>user\n{pictures}{text}<|im_end|>\n<|im_start|>assistant\n",
    picture="<|vision_start|><|image_pad|><|vision_end|>",
)
GEMMA = Spelling(
    sentencepiece=True,
    controls=(
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
        "<end_of_turn>",
    ),
    names={
        "pad_token": "<pad>",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
    template=(
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{% if m['content'] is string %}"
        "{{ m['content'] | trim }}{% else %}{% for part in m['content'] %}{% if part['type'] == 'image' %}"
        "<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    turn="<start_of_turn>user\n{pictures}{text}<end_of_turn>\n<start_of_turn>model\n",
    picture="<start_of_image>",
)
VICUNA = Spelling(
    sentencepiece=True,
    controls=("<pad>", "<s>", "<unk>", "<image>", "</s>"),
    names={"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"},
    template=(
        "{% for m in messages %}USER: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
        "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
        "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{% endif %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    turn="USER: {pictures}{text} ASSISTANT:",
    picture="<image>\n",
)
IDEFICS = Spelling(
    sentencepiece=False,
    controls=("<|pad|>", "<|start|>", "<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>"),
    names={
        "pad_token": "<|pad|>",
        "bos_token": "<|start|>",
        "eos_token": "<end_of_utterance>",
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    },
    template=(
        "<|start|>{% for m in messages %}{{ m['role'] }}:{% for part in m['content'] %}{% if part['type'] == 'image' %}"
        "<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    turn="<|start|>user:{pictures}{text}<end_of_utterance>\nassistant:",
    picture="<image>",
)


def _byte_level(spelling: Spelling) -> dict[str, Any]:
    """Return the embedded model's tokeniser with other control tokens, after its own vocabulary."""
    whole = json.loads((EMBEDDED / "tokenizer.json").read_text())
    old = {token["content"] for token in whole["added_tokens"]}
    vocabulary: dict[str, int] = whole["model"]["vocab"]
    whole["model"]["vocab"] = {f"unused{n}" if piece in old else piece: n for piece, n in vocabulary.items()}
    whole["added_tokens"] = _added(spelling, 1 + max(vocabulary.values()))
    return whole


def _sentencepiece(spelling: Spelling) -> dict[str, Any]:
    """Return a tokeniser in the way of SentencePiece: spaces as `▁`, bytes for what it has no piece for."""
    pieces = [*spelling.controls, *spelling.plain, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *(chr(code) for code in range(33, 127)), "th", "▁th", "▁the", "in", "▁a"]
    merges = [["t", "h"], ["▁", "th"], ["▁th", "e"], ["i", "n"], ["▁", "a"]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(spelling, 0),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": _beginning(spelling),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: number for number, piece in enumerate(pieces)},
            "merges": merges,
        },
    }


def _beginning(spelling: Spelling) -> dict[str, Any]:
    """Return the step that puts the first token before every text that is tokenised with special tokens."""
    first = spelling.names["bos_token"]
    one: list[dict[str, Any]] = [{"SpecialToken": {"id": first, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*one, {"Sequence": {"id": "B", "type_id": 1}}]
    tokens = {first: {"id": first, "ids": [spelling.controls.index(first)], "tokens": [first]}}
    return {"type": "TemplateProcessing", "single": one, "pair": pair, "special_tokens": tokens}


def _added(spelling: Spelling, first: int) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = [*((token, True) for token in spelling.controls), *((token, False) for token in spelling.plain)]
    return [
        {"id": first + n, "content": token, "special": special} | plain for n, (token, special) in enumerate(tokens)
    ]
