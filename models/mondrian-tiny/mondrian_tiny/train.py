"""Training: first the eye alone on the facts, then eye and language together.

Run in `models/mondrian-tiny/`: `python -m mondrian_tiny.train`. A later run goes on from the last checkpoint.
"""

import argparse
import time
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch

from mondrian_tiny import dialogues, tokenizer
from mondrian_tiny.drawing import Batch, Plan, batches
from mondrian_tiny.export import write_model
from mondrian_tiny.facts import FAMILIES, PLACES, label_classes
from mondrian_tiny.learner import Learner
from mondrian_tiny.pictures import draw_picture

SEED: Final = 1
_COLUMNS_SHARE: Final = 1 / 20
_MEAN_SHARE: Final = 1 / 8
_PLACE_SHARE: Final = 1 / 2
_FORM_WEIGHT: Final = 2.0
_PLACE_WEIGHT: Final = 0.7
_ORDERED_WEIGHT: Final = 0.3
_BALANCE_WEIGHT: Final = 3.0
_CORPUS_PICTURES: Final = 1200
_LOG_EVERY: Final = 20


def main() -> None:
    """Train, save checkpoints, and export the mean weights at the end."""
    options = _options()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    checkpoint = options.work / "checkpoint.pt"
    _learn_tokenizer(options.work, options.seed)
    learner = Learner(options.seed)
    if checkpoint.exists():
        learner.resume(checkpoint)
    if learner.step < options.steps:
        _train(learner, options, checkpoint)
    export(learner, options.work, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=Path("../../build/model"), help="folder of checkpoints")
    add("--out", type=Path, default=Path(), help="model folder to write at the end")
    add("--seed", type=int, default=SEED, help="names the pictures and the first weights")
    add("--steps", type=int, default=7200, help="steps in all")
    add("--eye-steps", type=int, default=2400, help="steps, of these, before any text")
    add("--pictures", type=int, default=16, help="pictures with text in a step")
    add("--eye-pictures", type=int, default=32, help="pictures without text in a step; half of it once there is text")
    add("--rate", type=float, default=1.2e-3, help="peak learning rate with text")
    add("--eye-rate", type=float, default=1.5e-3, help="peak learning rate before any text")
    add("--decay", type=float, default=0.35, help="share of the steps in which the rate falls")
    add("--save-every", type=int, default=500, help="steps between checkpoints")
    add("--threads", type=int, default=1, help="threads of PyTorch")
    return parser.parse_args()


def _learn_tokenizer(folder: Path, seed: int) -> None:
    if (folder / "tokenizer.json").exists():
        return
    share = range(_CORPUS_PICTURES // len(FAMILIES))
    facts = [draw_picture(family, seed, 0, i).facts for i in share for family in FAMILIES]
    learned = tokenizer.learn(dialogues.corpus(facts, np.random.default_rng(seed)))
    learned.save(str(folder / "tokenizer.json"))


def export(learner: Learner, work: Path, out: Path) -> None:
    """Write the mean weights as a model folder."""
    write_model(out, learner.mean_weights(), tokenizer.load(work))


def _rate(options: argparse.Namespace, step: int) -> float:
    """Rise for 200 steps in each stage, hold, and fall to nothing at the end."""
    if step < options.eye_steps:
        return options.eye_rate * min(1.0, (step + 1) / 200)
    falling = (options.steps - step) / (options.decay * options.steps)
    return options.rate * min(1.0, (step + 1 - options.eye_steps) / 200, falling)


def _train(learner: Learner, options: argparse.Namespace, checkpoint: Path) -> None:
    plan = Plan(
        seed=options.seed,
        first_step=learner.step,
        pictures_without_text=options.eye_pictures,
        pictures_with_text=options.pictures,
        text_from=options.eye_steps,
        model_folder=options.work,
    )
    began, first = time.monotonic(), learner.step
    for batch in batches(plan):
        text, facts = _losses(learner, batch)
        learner.update(text + facts, _rate(options, learner.step), mean_decay=0.998)
        if learner.step % _LOG_EVERY == 0:
            speed = (learner.step - first) / (time.monotonic() - began)
            left = (options.steps - learner.step) / speed / 60
            losses = f"text {text.item():.4f}  facts {facts.item():.3f}"
            print(f"step {learner.step}  {losses}  {speed:.2f} steps/s  {left:.0f} min", flush=True)
        if learner.step % options.save_every == 0 or learner.step >= options.steps:
            learner.save(checkpoint)
        if learner.step >= options.steps:
            return


def _losses(learner: Learner, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = learner.image_tokens(torch.from_numpy(batch.pixels))
    losses, weights = learner.heads(tokens, torch.from_numpy(batch.labels)), _column_weights()
    from_mean = (losses.from_mean * weights[: len(losses.from_mean)]).sum()
    facts = (losses.columns * weights).sum() * _COLUMNS_SHARE
    facts = facts + from_mean * _MEAN_SHARE + losses.place * _PLACE_SHARE
    text = learner.text_loss(batch.rows, tokens[: batch.asked_about]) if batch.rows else torch.zeros(())
    return text, facts


@cache
def _column_weights() -> torch.Tensor:
    """Weigh form most, since it is learned last, and least what the language can order by itself."""
    return torch.tensor([_column_weight(name) for name, _ in label_classes()])


def _column_weight(name: str) -> float:
    if name.startswith("item"):
        return _ORDERED_WEIGHT
    if name.startswith(PLACES):
        return _FORM_WEIGHT if name.endswith(" form") else _PLACE_WEIGHT
    return _BALANCE_WEIGHT if name == "balance" else 1.0


if __name__ == "__main__":
    main()
