"""The limit: mlx-vlm's `BatchGenerator` in one process, with nothing around it. A process of its own.

Run by the harness: `python -m bench.bare MODEL`. It says `ready`, then for each line with the paths of a plan and of a
run's file it runs the plan, writes what was seen, and says `done`. The weights are widened to float32 on the CPU, as
the engine does: computing in half precision takes twice as long there. Only the embedded model's architecture is known.
"""

import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten, tree_map
from mlx_vlm import load
from mlx_vlm.generate import BatchGenerator
from mlx_vlm.prompt_utils import apply_chat_template
from mlx_vlm.utils import prepare_inputs
from PIL import Image

from bench.board import Board
from bench.plan import Plan, Request
from mondrian_server.engine.process.linear_layers import speed_up_linear_layers


class Bare:
    """The model as mlx-vlm loads it, and once more with the engine's linear layers; and its processor."""

    def __init__(self, model: str):
        """Load the model."""
        self._as_it_comes, self._processor = _load(model)
        self._sped_up, _ = _load(model)
        speed_up_linear_layers(self._sped_up, apart=True)
        self._model = self._as_it_comes

    def run(self, plan: Plan) -> bytes:
        """Serve the requests of a plan as they become due, so many prompts at a time; return what was seen."""
        self._model = self._sped_up if plan.sped_up else self._as_it_comes
        generator = BatchGenerator(
            self._model.language_model,
            self._processor,
            prefill_batch_size=plan.prefill_rows,
            compute_logprobs=False,
            greedy_sampling=True,
        )
        board = Board(len(plan.requests))
        waiting, index_of = deque(enumerate(plan.requests)), dict[int, int]()
        left = len(plan.requests)
        while left:
            if len(index_of) < generator.completion_batch_size:
                self._admit(plan, generator, board, waiting, index_of)
            if not index_of:
                time.sleep(0.001)
                continue
            for one in generator.next()[1]:
                index = index_of[one.uid]
                board.arrived(index, 1)
                if one.finish_reason:
                    del index_of[one.uid]
                    board.seen[index].ended_s = board.now_s()
                    left -= 1
        generator.close()
        return msgspec.json.encode(board.run())

    def _admit(
        self,
        plan: Plan,
        generator: BatchGenerator,
        board: Board,
        waiting: "deque[tuple[int, Request]]",
        index_of: dict[int, int],
    ) -> None:
        due = [item for item in waiting if _is_due(board, item[1])]
        for index, request in due[: plan.prefill_rows]:
            waiting.remove((index, request))
            # The caller of a request that had to wait has waited since it was due.
            board.seen[index].sent_s = request.at_s if request.when is None else board.now_s()
            ids, inputs = self._inputs(request)
            board.seen[index].counts["prompt_tokens"] = len(ids)
            (uid,) = generator.insert([ids], max_tokens=request.max_tokens, prompt_kwargs=[inputs])
            index_of[uid] = index

    def _inputs(self, request: Request) -> tuple[list[int], dict[str, Any]]:
        images = [Image.open(request.image).convert("RGB")] if request.image else None
        prompt = apply_chat_template(self._processor, self._model.config, request.prompt, num_images=bool(images))
        inputs = prepare_inputs(
            self._processor, images=images, prompts=prompt, image_token_index=self._model.config.image_token_index
        )
        ids, pixels = inputs.pop("input_ids"), inputs.pop("pixel_values", None)
        mask = inputs.pop("attention_mask", None)
        embedded = self._model.get_input_embeddings(ids, pixels, mask=mask, **inputs).to_dict()
        kept = {name: value for name, value in embedded.items() if value is not None}
        mx.eval(list(kept.values()))
        return ids[0].tolist(), kept


def _load(model: str) -> tuple[Any, Any]:
    loaded, processor = load(model)
    if mx.default_device().type == mx.DeviceType.cpu:
        loaded.update(tree_map(lambda a: a.astype(mx.float32), loaded.parameters()))
    mx.eval([array for _, array in tree_flatten(loaded.parameters())])
    return loaded, processor


def _is_due(board: Board, request: Request) -> bool:
    if request.when is not None:
        return board.is_past(request.when)
    return board.now_s() >= request.at_s


def main(model: str) -> None:
    """Serve plans until the harness closes the pipe."""
    bare = Bare(model)
    print("ready", flush=True)
    for line in sys.stdin:
        plan_file, run_file = line.split()
        plan = msgspec.json.decode(Path(plan_file).read_bytes(), type=Plan)
        Path(run_file).write_bytes(bare.run(plan))
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
