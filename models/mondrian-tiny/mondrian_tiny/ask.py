"""Asking: greedy answers of an exported model through mlx-vlm, many pictures at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx_vlm import load
from mlx_vlm.models.cache import make_prompt_cache
from PIL import Image

from mondrian_tiny.score import Reply
from mondrian_tiny.shape import END_ID, IMAGE

MOST_TOKENS: Final = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Pictures that the model has read already, up to the user's text: keys and values of each layer."""

    count: int
    prefix_tokens: int
    layers: list[tuple[mx.array, mx.array]]


class Asker:
    """An exported model, loaded by mlx-vlm."""

    def __init__(self, folder: Path, *, most_tokens: int = MOST_TOKENS) -> None:
        """Load the model folder; an answer that reaches `most_tokens` has not ended."""
        self._most_tokens = most_tokens
        loaded: Any = load(str(folder))
        self.model, self.processor = loaded

    def look(self, images: Sequence[Image.Image]) -> Seen:
        """Read pictures once, for every question about them."""
        prefix = self._prompt("", images=1).partition(IMAGE)[0] + IMAGE
        inputs = self.processor(text=[prefix] * len(images), images=[[image] for image in images])
        embedded = self.model.get_input_embeddings(
            inputs["input_ids"],
            inputs["pixel_values"],
            pixel_attention_mask=inputs["pixel_attention_mask"],
        ).inputs_embeds
        cache = make_prompt_cache(self.model.language_model)
        self.model.language_model(inputs["input_ids"], inputs_embeds=embedded, cache=cache)
        layers = [layer.state for layer in cache]
        mx.eval(layers)
        return Seen(count=len(images), prefix_tokens=embedded.shape[1], layers=layers)

    def ask(self, images: Sequence[Image.Image], text: str) -> list[Reply]:
        """Put one text to every picture."""
        return self.ask_about(self.look(images), text)

    def ask_about(self, seen: Seen, text: str) -> list[Reply]:
        """Put one text to every picture; the prompts are of one length, so rows need no padding."""
        rest = self._encode(self._prompt(text, images=1))[seen.prefix_tokens :]
        cache = make_prompt_cache(self.model.language_model)
        for layer, (keys, values) in zip(cache, seen.layers, strict=True):
            layer.state = (mx.array(keys), mx.array(values))
        return self._answer(mx.array([rest] * seen.count), cache)

    def ask_without_picture(self, text: str) -> Reply:
        """Put a text to the model alone."""
        ids = mx.array([self._encode(self._prompt(text, images=0))])
        return self._answer(ids, make_prompt_cache(self.model.language_model))[0]

    def _prompt(self, text: str, *, images: int) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True))

    def _encode(self, prompt: str) -> list[int]:
        """Encode a prompt, each picture's place holder widened to its tokens."""
        images = prompt.count(IMAGE)
        if images:
            no_tiles = [[0] * images]
            prompt = self.processor.expand_text_with_image_tokens([prompt], no_tiles, no_tiles)[0]
        return [int(each) for each in self.processor.tokenizer.encode(prompt)]

    def _answer(self, prompt: mx.array, cache: list[Any]) -> list[Reply]:
        ids: list[list[int]] = [[] for _ in range(prompt.shape[0])]
        for step in self._steps(prompt, cache):
            for row, token in zip(ids, step, strict=True):
                if not row or row[-1] != END_ID:
                    row.append(token)
            if all(row[-1] == END_ID for row in ids):
                break
        return [self._reply(row) for row in ids]

    def _steps(self, ids: mx.array, cache: list[Any]) -> Iterator[list[int]]:
        """Yield the most likely next token of every row, step by step."""
        for _ in range(self._most_tokens):
            logits = self.model.language_model(ids, cache=cache).logits
            token = mx.argmax(logits[:, -1], axis=-1)
            yield [int(each) for each in token.tolist()]
            ids = token[:, None]

    def _reply(self, ids: list[int]) -> Reply:
        ended = ids[-1] == END_ID
        text = str(self.processor.tokenizer.decode(ids[:-1] if ended else ids))
        return Reply(text=text, ended=ended)
