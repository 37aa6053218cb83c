"""Preparation: a thread that tokenises prompts and resizes pictures, so that rows are ready before a slot is free.

It makes no mlx call: arrays are numpy here, and the MLX thread takes them from there.
"""

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mondrian_server.engine.process.loading import Encodes, LoadedModel
from mondrian_server.engine.process.prompts import Frame, join_text, splice
from mondrian_server.engine.protocol import RowFailed, Submit
from mondrian_server.pictures import Picture

_LOG = logging.getLogger(__name__)

_OF_THE_TEXT_ALONE = frozenset({"attention_mask", "token_type_ids", "mm_token_type_ids"})
"""What processors tell of each token of the text that they saw, which is not the whole prompt."""

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureInputs:
    """Pictures as the vision half takes them: one with its own token ids, or all with the prompt's beginning."""

    digest: bytes
    ids: tuple[int, ...]
    arrays: Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A row that is ready for a slot.

    pictures: each picture apart, where the architecture is known to encode them so; elsewhere one entry with all.
    """

    submit: Submit
    ids: tuple[int, ...]
    pictures: tuple[PictureInputs, ...]
    image_tokens: int
    max_tokens: int
    prepare_s: float


class Rejection(Exception):
    """A row that cannot be served."""

    def __init__(self, reason: str, message: str, field: str = ""):
        """Hold what `RowFailed` says."""
        super().__init__(message)
        self.reason = reason
        self.field = field

    def frame(self, row: int) -> RowFailed:
        """Return the closing update of `row`."""
        return RowFailed(row=row, reason=self.reason, message=str(self), field=self.field)


class Preparation:
    """Prepares rows one after the other, in the order in which they come."""

    def __init__(
        self,
        model: LoadedModel,
        waiting: "queue.SimpleQueue[Submit]",
        deliver: Callable[[Prepared | RowFailed], None],
    ):
        """Prepare the rows in `waiting` for `model` and call `deliver`, on the preparation thread, with each."""
        self._model = model
        self._format = model.format
        self._deliver = deliver
        self._waiting = waiting

    def start(self) -> None:
        """Start the thread; it lives as long as the process."""
        threading.Thread(target=self._run, name="preparation", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._deliver(self._outcome(self._waiting.get()))

    def _outcome(self, submit: Submit) -> Prepared | RowFailed:
        try:
            return self.prepare(submit)
        except Rejection as rejection:
            return rejection.frame(submit.row)
        except Exception as error:  # A row that cannot be prepared must not end the thread that prepares the others.
            _LOG.exception("row %d could not be prepared", submit.row)
            message = f"The prompt could not be prepared: {type(error).__name__}."
            return RowFailed(row=submit.row, reason="GENERATION_FAILED", message=message)

    def prepare(self, submit: Submit) -> Prepared:
        """Return the row with its token ids and arrays; raises `Rejection`."""
        began = time.monotonic()
        if submit.pictures and not self._model.description.accepts_images:
            raise Rejection("INVALID_REQUEST", "The model does not accept images.", "config.images")
        frame = self._frame(len(submit.pictures))
        if not submit.pictures or self._model.encodes is Encodes.APART:
            pictures = tuple(self._picture(picture) for picture in submit.pictures)
            before = self._with_pictures(frame.before, pictures)
        else:
            pictures = (self._together(frame.before, submit.pictures),)
            before = list(pictures[0].ids)
        ids = splice([before, self._caller_ids(submit), self._format.template_ids(frame.after, first=False)])
        return Prepared(
            submit=submit,
            ids=tuple(ids),
            pictures=pictures,
            image_tokens=sum(1 for i in ids if i == self._model.image_token),
            max_tokens=self._room(submit, len(ids)),
            prepare_s=time.monotonic() - began,
        )

    def _frame(self, pictures: int) -> Frame:
        try:
            return self._format.frame(pictures)
        except Exception as error:  # Templates raise what they like.
            if pictures <= 1:  # Which was tried when the model was warmed up.
                raise
            message = f"The model's chat format does not take {pictures} images."
            raise Rejection("INVALID_REQUEST", message, "config.images") from error

    def _caller_ids(self, submit: Submit) -> list[int]:
        ids = self._format.caller_ids(join_text(submit.instructions, submit.prompt))
        if self._model.vocabulary.media.isdisjoint(ids):
            return ids
        message = "The text spells a media placeholder, which this model cannot read as text."
        raise Rejection("INVALID_REQUEST", message, "config.prompt")

    def _room(self, submit: Submit, prompt_tokens: int) -> int:
        """Return the most tokens that the row may generate."""
        context, sampling = self._model.description.context_tokens, submit.sampling
        room = context - prompt_tokens
        if room < 1:
            message = f"The prompt has {prompt_tokens} tokens; the model's context is {context}."
            raise Rejection("CONTEXT_EXCEEDED", message, "config.prompt")
        if sampling.max_tokens is None:
            return min(sampling.default_max_tokens, room)
        if sampling.max_tokens > room:
            message = f"max_tokens is {sampling.max_tokens}; after {prompt_tokens} prompt tokens {room} fit."
            raise Rejection("CONTEXT_EXCEEDED", message, "config.sampling.max_tokens")
        return sampling.max_tokens

    def _with_pictures(self, text: str, pictures: tuple[PictureInputs, ...]) -> list[int]:
        """Tokenise a frame's beginning, with each placeholder replaced by its picture's token ids."""
        parts = text.split(self._model.placeholder) if pictures else [text]
        if len(parts) != len(pictures) + 1:
            raise ValueError("the chat template does not place the images before the text")
        ids = [self._format.template_ids(parts[0], first=True)]
        for picture, part in zip(pictures, parts[1:], strict=True):
            ids += [picture.ids, self._format.template_ids(part, first=False)]
        return splice(ids)

    def _picture(self, picture: Picture) -> PictureInputs:
        inputs = self._process(self._model.placeholder, [picture], markers=False)
        ids = tuple(int(i) for i in inputs.pop("input_ids")[0])
        return PictureInputs(digest=picture.digest, ids=ids, arrays=inputs)

    def _together(self, text: str, pictures: tuple[Picture, ...]) -> PictureInputs:
        inputs = self._process(text, list(pictures), markers=self._format.adds_markers)
        digest = hashlib.sha256(b"".join(picture.digest for picture in pictures)).digest()
        return PictureInputs(digest=digest, ids=tuple(int(i) for i in inputs.pop("input_ids")[0]), arrays=inputs)

    def _process(self, text: str, pictures: list[Picture], *, markers: bool) -> dict[str, npt.NDArray[Any]]:
        images = [Image.frombytes("RGB", (p.width, p.height), p.pixels) for p in pictures]
        outputs = self._call_processor(text, images, markers=markers)
        arrays = {name: np.asarray(value) for name, value in outputs.items() if value is not None}
        return {name: array for name, array in arrays.items() if name not in _OF_THE_TEXT_ALONE}

    def _call_processor(self, text: str, images: list[Image.Image], *, markers: bool) -> Mapping[str, Any]:
        process = self._model.processor
        try:
            return process(text=[text], images=images, add_special_tokens=markers, return_tensors="np")
        except TypeError:  # mlx-vlm 0.7.10's llava hands the tokeniser's options to the image processor.
            outputs = dict(process(text=[text], images=images, return_tensors="np"))
        surplus = 0 if markers else self._format.count_markers()
        return outputs | {"input_ids": [list(ids)[surplus:] for ids in outputs["input_ids"]]}
