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
from mondrian_tiny.shape import END_ID, IMAGE, IMAGE_ID, IMAGE_TOKENS

MOST_TOKENS: Final = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Pictures that are encoded already: their pixels, and `(pictures * 16, hidden)` features."""

    count: int
    pixels: mx.array
    features: mx.array


class Asker:
    """An exported model, loaded by mlx-vlm."""

    def __init__(self, folder: Path) -> None:
        """Load the model folder."""
        loaded: Any = load(str(folder))
        self.model, self.processor = loaded

    def look(self, images: Sequence[Image.Image]) -> Seen:
        """Encode pictures once, for every question about them."""
        inputs = self.processor(text=[IMAGE] * len(images), images=[[image] for image in images])
        ids, pixels = inputs["input_ids"], inputs["pixel_values"]
        mask = inputs["pixel_attention_mask"]
        embedded = self.model.get_input_embeddings(ids, pixels, pixel_attention_mask=mask).inputs_embeds
        first = ids[0].tolist().index(IMAGE_ID)
        features = embedded[:, first : first + IMAGE_TOKENS].reshape(-1, embedded.shape[-1])
        mx.eval(features)
        return Seen(count=len(images), pixels=pixels, features=features)

    def ask(self, images: Sequence[Image.Image], text: str) -> list[Reply]:
        """Put one text to every picture."""
        return self.ask_about(self.look(images), text)

    def ask_about(self, seen: Seen, text: str) -> list[Reply]:
        """Put one text to every picture; the prompts are of one length, so rows need no padding."""
        prompt = self._prompt(text, images=1)
        ids = mx.array([self._encode(prompt)] * seen.count)
        embedded = self.model.get_input_embeddings(ids, seen.pixels, cached_image_features=seen.features).inputs_embeds
        return self._answer(ids, embedded)

    def ask_without_picture(self, text: str) -> Reply:
        """Put a text to the model alone."""
        ids = mx.array([self._encode(self._prompt(text, images=0))])
        return self._answer(ids, self.model.get_input_embeddings(ids).inputs_embeds)[0]

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

    def _answer(self, prompt: mx.array, embedded: mx.array) -> list[Reply]:
        ids: list[list[int]] = [[] for _ in range(prompt.shape[0])]
        for step in self._steps(prompt, embedded):
            for row, token in zip(ids, step, strict=True):
                if not row or row[-1] != END_ID:
                    row.append(token)
            if all(row[-1] == END_ID for row in ids):
                break
        return [self._reply(row) for row in ids]

    def _steps(self, ids: mx.array, embedded: mx.array) -> Iterator[list[int]]:
        """Yield the most likely next token of every row, step by step."""
        language = self.model.language_model
        cache = make_prompt_cache(language)
        logits = language(ids, inputs_embeds=embedded, cache=cache).logits
        for _ in range(MOST_TOKENS):
            token = mx.argmax(logits[:, -1], axis=-1)
            yield [int(each) for each in token.tolist()]
            logits = language(token[:, None], cache=cache).logits

    def _reply(self, ids: list[int]) -> Reply:
        ended = ids[-1] == END_ID
        text = str(self.processor.tokenizer.decode(ids[:-1] if ended else ids))
        return Reply(text=text, ended=ended)
