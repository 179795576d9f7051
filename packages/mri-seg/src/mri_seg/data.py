"""From samples of the store to training examples: magnitudes, label ids, augmentation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mri_seg.config import AugmentConfig, DataConfig

__all__ = ["ExampleTransform", "augment", "magnitude_channels"]


def magnitude_channels(sample: Mapping[str, Any], inputs: tuple[str, ...]) -> torch.Tensor:
    """Stack the magnitudes of some elements of a sample, float32 (channel, y, x)."""
    return torch.stack([torch.from_numpy(np.abs(sample[path]).astype(np.float32)) for path in inputs])


class ExampleTransform:
    """Turn a sample of `mri_io.torch.SliceDataset` into ``{"image", "labels"}``.

    Parameters
    ----------
    data
        Names the input and label elements.
    augmented
        Whether the configured augmentation is applied.
    """

    def __init__(self, data: DataConfig, *, augmented: bool) -> None:
        self.data = data
        self.augment = data.augment if augmented else None

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return image (channel, y, x) float32 and labels (y, x) int64."""
        image = magnitude_channels(sample, self.data.inputs)
        labels = torch.from_numpy(sample[self.data.labels].astype(np.int64))
        if self.augment is not None:
            image, labels = augment(image, labels, self.augment, rng)
        return {"image": image, "labels": labels, "volume_id": sample["volume_id"]}


def augment(
    image: torch.Tensor, labels: torch.Tensor, config: AugmentConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply one random affine map, flip, gamma and noise.

    Parameters
    ----------
    image
        (channel, y, x), not negative.
    labels
        (y, x).
    config
        Ranges.
    rng
        All random numbers come from it.

    Returns
    -------
    image, labels
        Same shapes; the image interpolated bilinearly, the labels by nearest neighbour on the same map. Differentiable
        in the image.
    """
    grid = _affine_grid(labels.shape, config, rng).to(image.device)
    peak = image.amax().clamp_min(1e-12)
    warped = nn.functional.grid_sample(image[None], grid, mode="bilinear", align_corners=False)[0]
    moved = nn.functional.grid_sample(labels[None, None].double(), grid.double(), mode="nearest", align_corners=False)
    if config.gamma:
        # The floor keeps the gradient of a root finite where joint training needs it.
        warped = peak * (warped / peak).clamp_min(1e-6) ** float(rng.uniform(1 - config.gamma, 1 + config.gamma))
    if config.noise:
        noise = torch.from_numpy(rng.standard_normal(tuple(warped.shape)).astype(np.float32))
        warped = (warped + config.noise * peak * noise.to(image.device)).abs()
    return warped, moved[0, 0].round().long()


def _affine_grid(shape: torch.Size, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """Return sampling positions for `grid_sample`, (1, y, x, 2), of a random rotation, zoom, shift and flip."""
    angle = np.radians(rng.uniform(-config.rotate_degrees, config.rotate_degrees))
    zoom = rng.uniform(1 - config.scale, 1 + config.scale)
    flip = -1.0 if rng.random() < config.flip_x else 1.0
    shift = rng.uniform(-2 * config.shift, 2 * config.shift, 2)
    ratio = shape[0] / shape[1]  # grid_sample's coordinates run from -1 to 1 along both axes
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    theta = torch.tensor([[[flip * cos, -flip * sin * ratio, shift[0]], [sin / ratio, cos, shift[1]]]])
    size = [1, 1, int(shape[0]), int(shape[1])]
    return nn.functional.affine_grid(theta.float(), size, align_corners=False)
