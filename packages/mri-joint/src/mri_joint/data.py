"""From samples of the store to training examples: full k-space, a target mask, the target image and its labels.

Undersampling happens in the training step, where the curriculum knows how far the run is.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.torch import as_tensor
from mri_joint.config import RunConfig
from mri_recon.config import RunConfig as ReconRunConfig
from mri_recon.data import elements_of, input_scale, measured_part, sampling_mask
from mri_recon.sampling import MeasuredSamples

__all__ = ["ExampleTransform", "elements", "undersample"]


def elements(config: RunConfig) -> tuple[str, ...]:
    """Return the element paths that a run reads."""
    run = ReconRunConfig(model=config.reconstruction, data=config.data)
    return (*elements_of(run), config.data.labels)


class ExampleTransform:
    """Turn a sample of `mri_io.torch.SliceDataset` into an example.

    It has ``kspace`` (coil, ky, kx) complete, ``mask`` (1, 1 or ky, kx), the target mask, ``measured``, of that shape,
    one where a mask may sample, ``maps`` (map, coil, y, x) where the network reads them, ``target`` (y, x) and
    ``labels`` (y, x) int64.

    Parameters
    ----------
    config
        The run.
    measured
        What the scans measured: masks take nothing else. None for all of k-space.
    """

    def __init__(self, config: RunConfig, measured: MeasuredSamples | None = None) -> None:
        self.data = config.data
        self.measured = measured
        self.with_maps = config.reconstruction.coil_maps == "stored"

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the example; its mask is drawn with `rng`."""
        data = self.data
        kspace = as_tensor(sample[data.kspace])
        measured = measured_part(sample, self.measured)
        mask = sampling_mask(kspace.shape[-1], data.sampling, rng) * measured
        example = {
            "kspace": kspace,
            "mask": mask,
            "measured": measured.expand(mask.shape),
            "target": as_tensor(sample[data.target]),
            "labels": torch.from_numpy(sample[data.labels].astype(np.int64)),
            "volume_id": sample["volume_id"],
        }
        if self.with_maps:
            example["maps"] = as_tensor(sample[data.maps])
        return example


def undersample(batch: dict[str, Any], mask: Tensor) -> dict[str, Any]:
    """Apply a mask to a batch of complete k-space, and scale it as `mri_recon.data.ExampleTransform` does.

    Parameters
    ----------
    batch
        Examples as made by `ExampleTransform`, stacked.
    mask
        (batch, 1, 1 or ky, kx), not zero where sampled.

    Returns
    -------
    dict
        ``kspace``, ``target`` and ``peak`` (batch,) divided by the maximum of the zero-filled image; ``mask``,
        ``maps`` and ``labels`` as they are.
    """
    maps = batch.get("maps")
    kspace = batch["kspace"] * mask
    scale = input_scale(kspace, maps)
    target = batch["target"] / scale[:, 0]
    return {
        "kspace": kspace / scale,
        "mask": mask,
        "maps": maps,
        "target": target,
        "peak": target.abs().amax(dim=(-2, -1)),
        "labels": batch["labels"],
    }
