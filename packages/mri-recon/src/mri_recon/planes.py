"""K-space of a volume as the planes that two-dimensional methods reconstruct one after the other.

Slices are planes as they are. A volume that is encoded in three dimensions is transformed along an axis that is fully
sampled, kz or else the readout: what is left to reconstruct are planes across it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mri_io.errors import expected_got
from mri_io.schema.elements import SERIES
from mri_io.store import Element, Volume
from mri_recon.errors import ConfigError, FormatError
from mri_recon.physics import ifft1c
from mri_recon.sampling import Samples

__all__ = ["Plane", "Planes"]

_LINES = ("coil", "ky", "kx")
_TRANSFORMED = ("kz", "kx", "ky")
"""Axes along which a volume may be transformed first; the readout lies along kx, in ISMRMRD along ky."""


@dataclass(frozen=True)
class Plane:
    """One plane of all members of a series.

    Attributes
    ----------
    kspace
        (member, coil, ky, kx) complex64, zero where not sampled; of one that is across kx (member, coil, kz, ky).
    mask
        (member, 1, 1 or ky, 1 or kx) float32, one where sampled.
    """

    kspace: Tensor
    mask: Tensor


class Planes:
    """The planes of a volume.

    Parameters
    ----------
    volume, kspace, chosen
        See `Samples`. A volume that is not of slices is held in memory.

    Raises
    ------
    ConfigError
        When k-space is not Cartesian, of several slabs, or undersampled along all three axes.
    """

    def __init__(self, volume: Volume, kspace: Element, chosen: Element | None = None) -> None:
        self.element = kspace
        self.series = tuple(name for name in kspace.dims if name in SERIES)
        rest = kspace.dims[len(self.series) :]
        if rest not in (("slice", *_LINES), ("kz", *_LINES)):
            wanted = "(slice or kz, coil, ky, kx), perhaps behind sets, frames and echoes"
            fix = "Trajectories: mri_recon.physics.NonCartesianSense. Several slabs: store each as a volume."
            where = kspace.folder
            raise ConfigError(expected_got("dimensions", expected=wanted, got=kspace.dims, where=where, fix=fix))
        self.samples = Samples(volume, kspace, chosen)
        self.across = "slice" if rest[0] == "slice" else self._full_axis()
        lengths = kspace.shape[: len(self.series)]
        self.members = [dict(zip(self.series, index, strict=True)) for index in np.ndindex(*lengths)]
        self._lengths = lengths
        self._read_maps: tuple[str, Tensor] | None = None

    def _full_axis(self) -> str:
        varying = self.samples.dims
        found = next((name for name in _TRANSFORMED if name not in varying), None)
        if found is None:
            raise ConfigError(
                expected_got(
                    "sampling",
                    expected="an axis that is fully sampled",
                    got="a mask that varies along kz, ky and kx",
                    where=self.element.folder,
                )
            )
        return found

    def __len__(self) -> int:
        """Return the number of planes."""
        return self.element.shape[self.element.dims.index(self.across)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Coils and grid of a plane."""
        sizes = dict(zip(self.element.dims, self.element.shape, strict=True))
        rows, columns = {"kx": ("kz", "ky"), "ky": ("kz", "kx")}.get(self.across, ("ky", "kx"))
        return sizes["coil"], sizes[rows], sizes[columns]

    @property
    def memory(self) -> int:
        """Bytes that are held for as long as the planes are read: none for slices."""
        return 0 if self.across == "slice" else 8 * math.prod(self.element.shape)

    def mask(self, number: int) -> np.ndarray:
        """Return the samples of a plane, (member, 1, 1 or rows, 1 or columns), uint8."""
        if self.across in ("slice", "kz"):
            patterns = [self.samples.of_slice(number, **place) for place in self.members]
        else:
            axis = -1 if self.across == "kx" else -2
            partitions = range(self.element.shape[len(self.series)])
            patterns = []
            for place in self.members:
                lines = [np.take(self.samples.of_slice(kz, **place), 0, axis=axis) for kz in partitions]
                patterns.append(np.stack(np.broadcast_arrays(*lines)))
        return np.stack(np.broadcast_arrays(*patterns))[:, None]

    def plane(self, number: int) -> Plane:
        """Return a plane of all members of the series."""
        mask = torch.from_numpy(self.mask(number).astype(np.float32))
        if self.across == "slice":
            measured = self.element[(*[slice(None)] * len(self.series), number)]
            kspace = torch.from_numpy(measured.reshape(-1, *measured.shape[-3:]))
        else:
            kspace = self._transformed[number].clone()
        return Plane(kspace.mul_(mask), mask)

    def __iter__(self) -> Iterator[Plane]:
        """Yield all planes."""
        return (self.plane(number) for number in range(len(self)))

    @cached_property
    def _transformed(self) -> Tensor:
        """All planes, (plane, member, coil, rows, columns)."""
        coils, rows, columns = self.shape
        out = torch.empty((len(self), len(self.members), coils, rows, columns), dtype=torch.complex64)
        axis = {"kz": 0, "ky": 1, "kx": 2}[self.across]
        for member, place in enumerate(self.members):
            for coil in range(coils):
                index = (*place.values(), slice(None), coil)
                volume = ifft1c(torch.from_numpy(self.element[index]), axis)  # kz, ky, kx
                out[:, member, coil] = volume.movedim(axis, 0)
        return out

    def maps(self, element: Element, number: int) -> Tensor:
        """Return the coil maps of a plane, (map, coil, rows, columns)."""
        if self.across in ("slice", "kz"):
            return torch.from_numpy(element[number])
        return self._planes_of_maps(element)[number]

    def _planes_of_maps(self, element: Element) -> Tensor:
        if self._read_maps is None or self._read_maps[0] != element.commit:
            # (z, map, coil, y, x): the plane's axis in front, z first of what is left.
            whole = torch.from_numpy(element.numpy()).movedim(0, 2)
            axis = 4 if self.across == "kx" else 3
            self._read_maps = element.commit, whole.movedim(axis, 0).contiguous()
        return self._read_maps[1]

    def images(self, planes: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the images of all planes, each (member, rows, columns), as one array with its dimensions."""
        stacked = np.stack(planes, axis=self._axis_of_image)
        shape = (*self._lengths, *stacked.shape[1:])
        return stacked.reshape(shape), (*self.series, "slice" if self.across == "slice" else "z", "y", "x")

    def shape_of_maps(self, sets: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the shape of the coil maps of the volume, and the names of its dimensions."""
        sizes = dict(zip(self.element.dims, self.element.shape, strict=True))
        front = "slice" if self.across == "slice" else "kz"
        shape = (sizes[front], sets, sizes["coil"], sizes["ky"], sizes["kx"])
        return shape, ("slice" if self.across == "slice" else "z", "map", "coil", "y", "x")

    def blocks_of_maps(self, planes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the coil maps of all planes, each (map, coil, rows, columns), in the order in which they are stored.

        Raises
        ------
        FormatError
            When they are zero in all planes.
        """
        found = False
        kept = []
        for maps in planes:
            found |= bool(maps.any())
            if self.across in ("slice", "kz"):
                yield maps[None]
            else:
                kept.append(maps)
        if not found:
            where = self.element.folder.parent
            raise FormatError(f"{where}: kspace: expected a signal, got zeros only. Leave the volume out.")
        if kept:
            whole = np.stack(kept, axis=4 if self.across == "kx" else 3)  # map, coil, z, y, x
            for number in range(whole.shape[2]):
                yield whole[None, :, :, number]

    def merged(self, number: int) -> tuple[Tensor, np.ndarray]:
        """Return k-space of a plane for calibration, (coil, rows, columns), and its mask, (1 or rows, 1 or columns).

        Of frames the mean of what was measured at each position; of echoes and sets, whose contrasts differ, the first.
        """
        plane = self.plane(number)
        members = [n for n, place in enumerate(self.members) if not place.get("echo") and not place.get("set")]
        mask = plane.mask[members]
        kspace = plane.kspace[members].sum(dim=0) / mask.sum(dim=0).clamp_min(1)
        return kspace, mask.amax(dim=0)[0].to(torch.uint8).numpy()

    @property
    def _axis_of_image(self) -> int:
        return {"slice": 1, "kz": 1, "ky": 2, "kx": 3}[self.across]

    def where(self) -> str:
        """Return what messages call the sampled data: its masks, or k-space itself."""
        return " and ".join(str(mask.folder) for mask in self.samples.masks) or str(self.element.folder)

    def facts(self) -> Mapping[str, Any]:
        """Return what a result says of the planes: nothing for slices."""
        return {} if self.across == "slice" else {"planes_across": self.across}
