"""Dice + cross-entropy."""

import torch
from torch import nn

from mri_seg.config import LossConfig
from mri_seg.types import LabelBatch, LogitBatch

__all__ = ["SegmentationLoss"]


class SegmentationLoss(nn.Module):
    """Weighted sum of soft Dice (without background) and cross-entropy, by MONAI.

    Dice is summed over the batch before the ratio, so that slices without a class do not dominate.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        from monai.losses import DiceCELoss

        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            lambda_dice=config.dice,
            lambda_ce=config.cross_entropy,
        )

    def forward(self, logits: LogitBatch, labels: LabelBatch) -> torch.Tensor:
        """Return the loss, a scalar."""
        value: torch.Tensor = self.loss(logits, labels[:, None])
        return value
