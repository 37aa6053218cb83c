"""Prompts: a row's instructions, prompt and pictures become the token ids of the model's own chat format.

The chat template is rendered once around a sentinel; what stands before and after it is tokenised with the template's
control tokens in force, and the caller's text apart, with none: `<image>` typed by a caller is seven characters.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mondrian_server.engine.process.mlx_typed import member

_SENTINEL = "\ue000mondrian\ue001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the chat template puts around the caller's text, as text with image placeholders."""

    before: str
    after: str


class PromptFormat:
    """The chat format of one model. Used by the preparation thread only: tokenisers keep state."""

    def __init__(self, processor: Any, config: Any):
        """Read the format from a loaded processor and model configuration."""
        self._processor = processor
        self._config = config
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self.adds_markers = bool(member("mlx_vlm.utils", "should_add_special_tokens")(config.model_type, processor))

    @functools.cache  # noqa: B019 # one object for the life of the process, at most nine entries
    def frame(self, pictures: int) -> Frame:
        """Return the frame for a user turn of so many pictures and one text."""
        render = member("mlx_vlm.prompt_utils", "apply_chat_template")
        rendered = render(self._processor, self._config, _SENTINEL, num_images=pictures)
        before, found, after = str(rendered).partition(_SENTINEL)
        if not found:
            raise ValueError("the model's chat template drops the user's text")
        return Frame(before=before, after=after)

    @functools.cache  # noqa: B019 # as above: keyed by texts of frames
    def template_ids(self, text: str, *, first: bool) -> tuple[int, ...]:
        """Tokenise a part of a frame; `first`: it begins the prompt."""
        return tuple(self._tokenizer(text, add_special_tokens=first and self.adds_markers)["input_ids"])

    def caller_ids(self, text: str) -> list[int]:
        """Tokenise text that a caller wrote: control tokens in it are plain text."""
        if not text:
            return []
        return list(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def join_text(instructions: str, prompt: str) -> str:
    """Return the one text of a user turn."""
    return "\n\n".join(part for part in (instructions, prompt) if part)


def splice(parts: Sequence[Sequence[int]]) -> list[int]:
    """Join token ids."""
    return [i for part in parts for i in part]
