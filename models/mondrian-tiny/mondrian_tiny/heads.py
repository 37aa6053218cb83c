"""Fact heads: read the ground truth off the image tokens, in training only."""

import torch
from torch import nn
from torch.nn import functional

from mondrian_tiny.facts import label_classes
from mondrian_tiny.shape import HIDDEN, IMAGE_TOKENS


class FactHeads(nn.Module):
    """One linear map from all image tokens to every fact; it is not part of the saved model."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [classes for _, classes in label_classes()]
        self.norm = nn.LayerNorm(HIDDEN)
        self.read = nn.Linear(HIDDEN * IMAGE_TOKENS, sum(self.sizes))

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each label column's mean loss, as `(columns,)`; absent facts count nothing."""
        scores = self.read(self.norm(tokens).flatten(1)).float().split(self.sizes, dim=1)
        losses = [
            functional.cross_entropy(score, labels[:, i], ignore_index=-1, reduction="sum")
            for i, score in enumerate(scores)
        ]
        return torch.stack(losses) / (labels >= 0).sum(0).clamp(min=1)

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
