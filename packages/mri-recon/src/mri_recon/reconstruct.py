"""Reconstruct the planes of a volume in batches, by a method or a network."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.store import Element
from mri_recon.classical import Reconstruction
from mri_recon.errors import ConfigError
from mri_recon.memory import BATCH_BYTES
from mri_recon.planes import Planes

__all__ = ["Outcome", "planes_at_once", "reconstruct_planes"]


@dataclass
class Outcome:
    """What came of the planes of a volume.

    Attributes
    ----------
    images
        Of each plane, (member, rows, columns).
    stopped
        Why a method stopped, and how many planes it did so for.
    iterations
        The most that a plane took.
    settings
        What was chosen from the data: a number for each plane of each member.
    """

    images: list[np.ndarray] = field(default_factory=list)
    stopped: Counter[str] = field(default_factory=Counter)
    iterations: int = 0
    settings: dict[str, list[float]] = field(default_factory=dict)

    def add(self, result: Reconstruction, images: Tensor) -> None:
        """Add the images (plane, member, rows, columns) of some planes."""
        self.images += list(images.cpu().numpy())
        self.stopped[result.reason] += len(images)
        self.iterations = max(self.iterations, result.iterations)
        for name, value in result.settings.items():
            self.settings.setdefault(name, []).extend(torch.as_tensor(value).reshape(-1).tolist())

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the result says of how it came about; nothing for what has no iterations."""
        facts = {"iterations": self.iterations, "stopped": dict(self.stopped)} if self.iterations else {}
        return {**facts, **({"chosen": self.settings} if self.settings else {})}


def planes_at_once(planes: Planes) -> int:
    """Return how many planes make a batch."""
    return max(1, BATCH_BYTES // (8 * len(planes.members) * int(np.prod(planes.shape))))


def reconstruct_planes(
    reconstruct: Callable[[Tensor, Tensor, Tensor | None], Reconstruction],
    planes: Planes,
    maps: Element | None,
    device: str,
    *,
    at_once: int = 1,
    series: bool = False,
) -> Outcome:
    """Reconstruct all planes of a volume.

    Parameters
    ----------
    reconstruct
        Function of (kspace, mask, maps) on a batch; k-space is zero outside the mask.
    planes
        Of the volume.
    maps
        Coil maps of the volume.
    device
        Where `reconstruct` runs.
    at_once
        Planes in a batch.
    series
        Give it the members of a series together, (plane, member, coil, ky, kx), and not as a batch of their own.

    Returns
    -------
    Outcome
        Of several map sets the root of the sum of squares.

    Raises
    ------
    ConfigError
        When the mask samples nothing that was measured.
    """
    if not any(planes.mask(number).any() for number in range(len(planes))):
        raise ConfigError(f"{planes.where()}: the mask samples nothing that was measured. Choose another --mask.")
    outcome = Outcome()
    with torch.inference_mode():
        for first in range(0, len(planes), at_once):
            numbers = range(first, min(first + at_once, len(planes)))
            kspace, mask, s = _batch(planes, maps, numbers, device)
            if series:
                s = None if s is None else s[:, None]
                result = reconstruct(kspace, mask, s)
                images = result.image
            else:
                members = kspace.shape[1]
                if s is not None and members > 1:
                    s = s.repeat_interleave(members, dim=0)
                result = reconstruct(kspace.flatten(0, 1), mask.flatten(0, 1), s)
                images = result.image.unflatten(0, (len(numbers), members))
            if images.ndim == 5:  # several map sets
                images = images.abs().square().sum(dim=2).sqrt()
            outcome.add(result, images)
    return outcome


def _batch(planes: Planes, maps: Element | None, numbers: range, device: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return k-space, masks and maps of some planes; nothing else of them is kept."""
    found = [planes.plane(number) for number in numbers]
    shape = torch.broadcast_shapes(*(plane.mask.shape for plane in found))
    mask = _stacked([plane.mask.expand(shape) for plane in found]).to(device)
    kspace = _stacked([plane.kspace for plane in found]).to(device)
    s = None if maps is None else _stacked([planes.maps(maps, number) for number in numbers]).to(device)
    return kspace, mask, s


def _stacked(tensors: list[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)
