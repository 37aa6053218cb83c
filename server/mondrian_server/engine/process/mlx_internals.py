"""mlx-vlm internals: every reach-in to private parts of mlx-vlm 0.7.10, and nothing else.

`BatchGenerator.next` makes a decode step and one piece of prefill together, and hides how far a prefill has come. Here
the two are apart, so that the loop can serve commands and report between them. Look at this module again with each new
version of mlx-vlm; the pin in pyproject.toml names the one that it was written for.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mondrian_server.engine.process.mlx_typed import evaluate, flatten, member, to_numpy


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A token that came out of a decode step; `ended` is "stop", "length" or empty."""

    uid: int
    token: int
    ended: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilled:
    """How far a prompt has come. `step` tokens were computed just now."""

    step: int
    done: int
    cached: int
    finished: bool


class Watched:
    """A language model that keeps the logits of its last call.

    mlx-vlm 0.7.10 hands samplers normalised log-probabilities, in which the repetition penalty (defined on logits)
    cannot be expressed. Delete this when samplers are given logits.
    """

    def __init__(self, model: Any):
        """Wrap `model`."""
        self._model = model
        self._logits: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the model."""
        if options.get("deepstack_visual_embeds") is not None:
            options |= _deepstack_of_chunk(options, arguments[0].shape[1])
        output = self._model(*arguments, **options)
        if "n_to_process" not in options:  # With it: a chunk of a prompt before the last, whose logits nobody needs.
            self._logits = output.logits if hasattr(output, "logits") else output
        return output

    def __getattr__(self, name: str) -> Any:
        """Give what the model has."""
        return getattr(self._model, name)

    def last_logits(self) -> mx.array:
        """Return the logits of the last column of the last call, (rows, vocabulary)."""
        logits = self._logits
        self._logits = None  # The graph must not be kept alive by this reference.
        return logits[:, -1, :]


class _Paced:
    """A layer whose result is computed before the next one is begun."""

    def __init__(self, layer: Any):
        self._layer = layer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        output = self._layer(*arguments, **options)
        evaluate(*flatten(output))
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def pace_vision(model: Any) -> None:
    """Make a model compute its vision half layer by layer, where its layers are found.

    mlx 0.32 lets no thread go on that has anything to compute while about a hundred operations are under way in the
    whole process. A picture is more than that, so a thread that encodes one at once holds up every decode step. (Linear
    layers that numpy computes end each run of operations, too; quantised and half-precision ones do not.)
    """
    tower = getattr(model, "vision_tower", None) or getattr(model, "vision_model", None)
    tower = getattr(tower, "vision_model", tower)
    for owner, name in ((getattr(tower, "encoder", None), "layers"), (tower, "blocks")):
        if isinstance(layers := getattr(owner, name, None), list):
            setattr(owner, name, [_Paced(layer) for layer in cast("list[Any]", layers)])


class Generator:
    """A `BatchGenerator` whose decode steps and prefill chunks are separate calls. One row is prefilled at a time."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        sampler: Any,
        *,
        slots: int,
        step_tokens: int,
        prefix_cache: Any,
        kv_bits: int,
        kv_group_size: int,
    ):
        """Build on the thread that will make every call: mlx streams are thread-local."""
        quantised = {"kv_bits": kv_bits, "kv_group_size": kv_group_size} if kv_bits else {}
        # Typed Any: every use below is of a private or an untyped part.
        self._generator: Any = member("mlx_vlm.generate.ar", "BatchGenerator")(
            model,
            processor,
            sampler=sampler,
            completion_batch_size=slots + 1,
            prefill_batch_size=1,
            prefill_step_size=step_tokens,
            compute_logprobs=False,
            apc_manager=prefix_cache,
            **quantised,
        )
        self._fresh: list[Any] = []

    def decoding(self) -> list[int]:
        """Return the uids of the next decode step's rows, in batch order."""
        return self._generator._generation_batch.uids

    def decode(self) -> list[Emitted]:
        """Make one decode step: start the next tokens, return the ones started before."""
        waiting, self._generator._prompt_batch = self._generator._prompt_batch, None
        try:
            _, responses = self._generator.next()
        finally:
            self._generator._prompt_batch = waiting
        return [Emitted(uid=r.uid, token=r.token, ended=r.finish_reason or "") for r in responses]

    def insert(self, ids: Sequence[int], max_tokens: int, inputs: Mapping[str, Any]) -> int:
        """Queue the one prompt to prefill next and return its uid."""
        inputs = dict(inputs)
        if inputs.get("deepstack_visual_embeds") is not None:
            inputs["visual_pos_masks"] = _unaligned(inputs["visual_pos_masks"])
        return self._generator.insert([list(ids)], max_tokens=[max_tokens], prompt_kwargs=[inputs])[0]

    def prefill(self) -> Prefilled:
        """Compute one chunk of the queued prompt; the finished row joins the batch at `join`."""
        generator = self._generator
        running, generator._generation_batch = generator._generation_batch, self._empty_batch()
        before = generator._prompt_batch
        done_before = before._processed_prompt_columns if before is not None else 0
        try:
            finished, _ = generator.next()
            fresh = generator._generation_batch
        finally:
            generator._generation_batch = running
        batch = generator._prompt_batch
        if batch is None:
            if len(fresh):
                self._fresh.append(fresh)
            return Prefilled(step=1, done=0, cached=finished[0].cached_tokens, finished=True)
        done, cached = batch._processed_prompt_columns, batch._cached_tokens_per_row[0]
        return Prefilled(step=done - done_before, done=cached + done, cached=cached, finished=False)

    def join(self) -> None:
        """Let the rows whose prefill is finished take part in the next decode step."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        with mx.stream(self._generator.stream):
            for other in fresh[1:]:
                fresh[0].extend(other)
            self._generator._extend_generation_batch(fresh[0])

    def remove(self, uid: int) -> None:
        """Take a row out, wherever it is."""
        for batch in self._fresh:
            if uid in batch.uids:
                self._fresh.remove(batch)
                return
        self._generator.remove(uid)

    def abandon_prefill(self) -> None:
        """Drop the prompt whose prefill failed."""
        generator = self._generator
        batch, generator._prompt_batch = generator._prompt_batch, None
        generator._unprocessed_sequences = []
        if batch is not None:
            batch._release_apc_meta_blocks()

    def close(self) -> None:
        """Give back what the generator holds of the device."""
        self._generator.close()

    def _empty_batch(self) -> Any:
        running = self._generator._generation_batch
        empty = member("mlx_vlm.generate.ar", "GenerationBatch").empty
        return empty(running.model, running.sampler, running.stop_criteria, compute_logprobs=False)


def _unaligned(marks: mx.array) -> mx.array:
    """Return marks of a prompt's tokens that are one too long for `BatchGenerator` to cut them with the prompt."""
    return mx.concatenate([marks, mx.zeros((marks.shape[0], 1), dtype=marks.dtype)], axis=1)


def _deepstack_of_chunk(options: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """Return the marks of a chunk's visual tokens, and the features that are added at those.

    mlx-vlm 0.7.10 cuts the marks with the prompt but not the features, so that each chunk of a prompt begins with those
    of the first picture. Delete this and `_unaligned` when qwen3_vl gives the same text in chunks and at once.
    """
    marks = to_numpy(options["visual_pos_masks"])
    start = int(to_numpy(mx.array(options["cache"][0].offset)).max())
    before, after = int(marks[:, :start].sum()), int(marks[:, : start + tokens].sum())
    features = [layer[before:after] for layer in options["deepstack_visual_embeds"]]
    here = options["visual_pos_masks"][:, start : start + tokens]
    return {"visual_pos_masks": here, "deepstack_visual_embeds": features if after > before else None}


def open_prefix_manager(**options: Any) -> Any:
    """Return mlx-vlm's manager of prefix blocks, which here measures what it holds by one block.

    mlx-vlm 0.7.10 adds up every array of every block several times for each prompt: with 1,024 blocks of four layers a
    quarter of what reading a prompt of 200 tokens takes. All blocks of a model are alike. Delete this when it counts.
    """
    kind: Any = member("mlx_vlm.apc", "APCManager")

    def resident_bytes(manager: Any) -> int:
        if manager._exact_cache:
            return kind._resident_bytes_locked(manager)
        held = [block for block in manager.pool if block.components]
        return len(held) * held[0].resident_bytes() if held else 0

    return type("Manager", (kind,), {"_resident_bytes_locked": resident_bytes})(**options)


def keep_numpy(processor: Any) -> None:
    """Make an mlx-vlm processor return numpy arrays.

    The preparation thread must make no mlx call, and mlx-vlm 0.7.10's own processors end in `to_mlx`. Delete this when
    they honour `return_tensors="np"`.
    """
    module = sys.modules[type(processor).__module__]
    if hasattr(module, "to_mlx"):
        module.to_mlx = _to_numpy  # pyright: ignore[reportAttributeAccessIssue] # the module is third-party and untyped


def _to_numpy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: np.array(cast("Any", value)) if isinstance(value, list) else value for key, value in data.items()}
