"""Prompts: a row's instructions, prompt and pictures become the token ids of the model's own chat format.

The chat template is rendered once around a sentinel; what stands before and after it is tokenised with the template's
control tokens in force, and the caller's text apart, with none: `<image>` typed by a caller is seven characters.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mondrian_server.engine.process.mlx_typed import member
from mondrian_server.engine.process.thinking import END, ThinkingError

_SENTINEL = "\ue000mondrian\ue001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the chat template puts around the caller's text, as text with image placeholders in what comes before."""

    before: str
    after: str


class PromptFormat:
    """The chat format of one model. Used by the preparation thread only: tokenisers keep state."""

    def __init__(self, processor: Any, config: Any, *, thinking: bool = False):
        """Read the format from a loaded processor and model configuration; `thinking`: where the template has that."""
        self._processor = processor
        self._config = config
        self._thinking = thinking
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self._tokenize_plainly = plain_tokeniser(self.tokenizer)
        wanted = bool(member("mlx_vlm.utils", "should_add_special_tokens")(config.model_type, processor))
        self.adds_markers = wanted and not self._begins_with_marker()

    def _begins_with_marker(self) -> bool:
        """Whether the template itself writes the token with which texts begin, so that the tokeniser must not."""
        first = self.tokenizer.bos_token
        return isinstance(first, str) and self.frame(0).before.startswith(first)

    @functools.cache  # noqa: B019 # one object for the life of the process, at most nine entries
    def frame(self, pictures: int) -> Frame:
        """Return the frame for a user turn of so many pictures and one text, the pictures first."""
        for render in (self._as_mlx_vlm, self._pictures_first):
            before, found, after = render(pictures).partition(_SENTINEL)
            if not found:
                raise ValueError("the model's chat template drops the user's text")
            if not pictures or after == self.frame(0).after:
                return Frame(before=before, after=after)
        raise ValueError("the model's chat template does not place the images before the text")

    def _as_mlx_vlm(self, pictures: int) -> str:
        render = member("mlx_vlm.prompt_utils", "apply_chat_template")
        return str(
            render(self._processor, self._config, _SENTINEL, num_images=pictures, enable_thinking=self._thinking)
        )

    def _pictures_first(self, pictures: int) -> str:
        """Render a turn of parts; mlx-vlm 0.7.10 puts the images of some architectures after the text."""
        parts = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": _SENTINEL}]
        render = member("mlx_vlm.prompt_utils", "get_chat_template")
        turn = [{"role": "user", "content": parts}]
        return str(render(self._processor, turn, True, enable_thinking=self._thinking))

    def count_markers(self) -> int:
        """Return how many tokens the tokeniser puts before a text by itself."""
        return len(self.tokenizer("")["input_ids"])

    @functools.cache  # noqa: B019 # as above: keyed by texts of frames
    def template_ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        """Tokenise a part of a frame; `first`: it begins the prompt."""
        return tuple(self.tokenizer(text, add_special_tokens=first and self.adds_markers)["input_ids"])

    def caller_ids(self, text: str) -> list[int]:
        """Tokenise text that a caller wrote: control tokens in it are plain text."""
        return self._tokenize_plainly(text) if text else []


def read_format(processor: Any, config: Any, *, thinking: bool) -> PromptFormat:
    """Return the chat format of a loaded model; raises ThinkingError if it knows no thinking, and should think."""
    chat = PromptFormat(processor, config, thinking=thinking)
    ready = not thinking or END in chat.tokenizer.get_vocab()
    if not ready and chat.frame(0) == PromptFormat(processor, config).frame(0):
        raise ThinkingError("thinking is set, and its chat template knows no thinking")
    return chat


def plain_tokeniser(tokenizer: Any) -> Callable[[str], list[int]]:
    """Return a tokeniser to which no text is a control token, an added one that is not called special included."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    whole: dict[str, Any] = json.loads(backend.to_str())
    added = {token["content"] for token in whole["added_tokens"]} - {whole["model"].get("unk_token")}
    vocabulary: dict[str, int] | list[Any] | None = whole["model"].get("vocab")
    if isinstance(vocabulary, dict):
        whole["model"]["vocab"] = {piece: n for piece, n in vocabulary.items() if piece not in added}
    plain = member("tokenizers", "Tokenizer").from_str(
        json.dumps(whole | {"added_tokens": [], "truncation": None, "padding": None, "post_processor": None})
    )
    return lambda text: list(plain.encode(text, add_special_tokens=False).ids)


def join_text(instructions: str, prompt: str) -> str:
    """Return the one text of a user turn."""
    return "\n\n".join(part for part in (instructions, prompt) if part)


def splice(parts: Sequence[Sequence[int]]) -> list[int]:
    """Join token ids."""
    return [i for part in parts for i in part]
