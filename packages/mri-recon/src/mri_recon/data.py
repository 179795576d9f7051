"""From samples of the store to training examples: retrospective sampling, scaling, tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.torch import as_tensor
from mri_recon.config import DataConfig, RunConfig, SamplingConfig
from mri_recon.physics import MASKS, combine, ifft2c, root_sum_of_squares
from mri_recon.sampling import MeasuredSamples

__all__ = [
    "ExampleTransform",
    "elements_of",
    "input_scale",
    "masks_of_batch",
    "measured_part",
    "sampling_mask",
    "with_signal",
]


def elements_of(config: RunConfig) -> tuple[str, ...]:
    """Return the element paths that a run reads."""
    data = config.data
    maps = (data.maps,) if config.model.coil_maps == "stored" else ()
    return (data.kspace, data.target, *maps)


def sampling_mask(
    columns: int, sampling: SamplingConfig, rng: np.random.Generator, acceleration: float | None = None
) -> Tensor:
    """Draw a mask of lines, float32 (1, 1, kx), one where sampled.

    Parameters
    ----------
    columns
        Number of lines.
    sampling
        Kind, acceleration and central share.
    rng
        Seeds the mask.
    acceleration
        In place of the configured one.
    """
    seed = int(rng.integers(2**31))
    mask = MASKS[sampling.mask](columns, acceleration or sampling.acceleration, sampling.center_fraction, seed)
    return torch.from_numpy(mask.astype(np.float32))[None, None]


def measured_part(sample: dict[str, Any], measured: MeasuredSamples | None) -> Tensor:
    """Return what the scan measured of a sample's k-space, float32 (1, 1 or ky, 1 or kx), one where measured.

    Parameters
    ----------
    sample
        Of `mri_io.torch.SliceDataset`.
    measured
        Of the cohort; None for all of k-space.
    """
    found = None if measured is None else measured(sample["volume_id"], sample["slice"])
    return torch.ones(1, 1, 1) if found is None else torch.from_numpy(found.astype(np.float32))[None]


def masks_of_batch(masks: Tensor | list[Tensor]) -> Tensor:
    """Return the masks of a batch as one tensor; beside masks of points those of lines become points, too."""
    return masks if isinstance(masks, Tensor) else torch.stack(torch.broadcast_tensors(*masks))


def with_signal(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors of a batch without its elements whose k-space or target is zero, as some scanners add.

    Nothing is to be learnt from them, and the root of a sum of squares has no gradient at zero.
    """
    seen = (batch["peak"] > 0) & (batch["kspace"] != 0).flatten(1).any(dim=1)
    return {key: value[seen] for key, value in batch.items() if isinstance(value, Tensor)}


def input_scale(kspace: Tensor, maps: Tensor | None) -> Tensor:
    """Return the maximum magnitude of the zero-filled image per batch element, (..., 1, 1, 1).

    Networks see data divided by it, and their output is multiplied by it, so that the units of a scanner do not
    matter. It is computed from the sampled data alone.
    """
    images = ifft2c(kspace)
    zero_filled = root_sum_of_squares(images) if maps is None else combine(images, maps)[..., 0, :, :].abs()
    peak = zero_filled.amax(dim=(-2, -1))[..., None, None, None]
    return peak.clamp_min(torch.finfo(peak.dtype).tiny ** 0.5)


class ExampleTransform:
    """Turn a sample of `mri_io.torch.SliceDataset` into a training example.

    The example has ``kspace`` (coil, ky, kx), masked and divided by `input_scale`, ``mask`` (1, 1 or ky, kx), ``maps``
    (map, coil, y, x) where they are stored, ``target`` (y, x) divided by the same scale, ``peak`` the target's
    maximum magnitude, and ``scale``.

    Parameters
    ----------
    data
        Names the elements and the sampling.
    with_maps
        Whether maps are read.
    measured
        What the scans measured: masks take nothing else. None for all of k-space.
    """

    def __init__(self, data: DataConfig, *, with_maps: bool, measured: MeasuredSamples | None = None) -> None:
        self.data = data
        self.with_maps = with_maps
        self.measured = measured

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the example; its mask is drawn with `rng`."""
        columns = sample[self.data.kspace].shape[-1]
        mask = sampling_mask(columns, self.data.sampling, rng) * measured_part(sample, self.measured)
        return self.example(sample, mask)

    def example(self, sample: dict[str, Any], mask: Tensor) -> dict[str, Any]:
        """Return the example for a given mask."""
        kspace = as_tensor(sample[self.data.kspace]) * mask
        maps = as_tensor(sample[self.data.maps]) if self.with_maps else None
        scale = input_scale(kspace, maps)
        target = as_tensor(sample[self.data.target]) / scale[0, 0, 0]
        example = {
            "kspace": kspace / scale,
            "mask": mask,
            "target": target,
            "peak": target.abs().amax(),
            "scale": scale,
            "volume_id": sample["volume_id"],
        }
        if maps is not None:
            example["maps"] = maps
        return example
