"""Fact heads: read the ground truth off the image tokens, in training only."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mondrian_tiny.facts import ITEM_LABELS, MOST_ITEMS, PICTURE_LABELS, label_classes
from mondrian_tiny.shape import HIDDEN, IMAGE_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Mean losses: `columns` of every label, `from_mean` of the first of them, and `place`, a scalar."""

    columns: torch.Tensor
    from_mean: torch.Tensor
    place: torch.Tensor


class FactHeads(nn.Module):
    """Linear maps from image tokens to facts; they are not part of the saved model.

    `read` sees every token apart, and gives every fact. `read_mean` sees only the tokens' mean, and gives
    the facts in the order in which they are said: what stands there, the language finds by looking anywhere.
    `read_place` sees one token, and says which one it is: so a token tells the language where it stands.
    """

    def __init__(self) -> None:
        """Start with weights drawn at random."""
        super().__init__()
        self.sizes = [classes for _, classes in label_classes()]
        self.said = len(PICTURE_LABELS) + MOST_ITEMS * len(ITEM_LABELS)
        self.norm = nn.LayerNorm(HIDDEN)
        self.read = nn.Linear(HIDDEN * IMAGE_TOKENS, sum(self.sizes))
        self.read_mean = nn.Linear(HIDDEN, sum(self.sizes[: self.said]))
        self.read_place = nn.Linear(HIDDEN, IMAGE_TOKENS)

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> Losses:
        """Return the mean losses of every reader."""
        normed = self.norm(tokens)
        places = torch.arange(IMAGE_TOKENS).repeat(len(tokens))
        return Losses(
            columns=_losses(self.read(normed.flatten(1)), labels, self.sizes),
            from_mean=_losses(self.read_mean(normed.mean(1)), labels, self.sizes[: self.said]),
            place=functional.cross_entropy(self.read_place(normed).float().flatten(0, 1), places),
        )

    @torch.no_grad()
    def accuracy(self, tokens: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return the share of right answers of each label column."""
        scores = self.read(self.norm(tokens).flatten(1)).float().split(self.sizes, dim=1)
        shares: dict[str, float] = {}
        for i, (name, _) in enumerate(label_classes()):
            known = labels[:, i] >= 0
            right = (scores[i].argmax(1) == labels[:, i])[known]
            shares[name] = float(right.float().mean()) if bool(known.any()) else float("nan")
        return shares


def _losses(scores: torch.Tensor, labels: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return each label column's mean loss, as `(columns,)`; absent facts count nothing."""
    losses = [
        functional.cross_entropy(score, labels[:, i], ignore_index=-1, reduction="sum")
        for i, score in enumerate(scores.float().split(sizes, dim=1))
    ]
    return torch.stack(losses) / (labels[:, : len(sizes)] >= 0).sum(0).clamp(min=1)
