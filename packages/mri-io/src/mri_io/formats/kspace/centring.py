"""k-space whose convention its file does not state: found from the data, and brought to the store's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_io.errors import FormatError, expected_got

__all__ = ["Centring"]

_AXES = (-2, -1)
_NEAR = 1 / 8
"""Of an axis: how far the strongest sample may lie from where zero frequency is."""
_DECIDED = 0.05
"""Length of the mean of the energy around an axis, 0 where it is even and 1 where it is in one place."""


@dataclass(frozen=True)
class Centring:
    """Where zero frequency lies in k-space, and where the plain inverse transform puts the middle of the image.

    Attributes
    ----------
    corner
        For rows and columns, whether zero frequency is the first sample, as `numpy.fft.fft2` leaves it, and not the
        middle one.
    plain
        For rows and columns, whether the plain inverse transform, `numpy.fft.ifft2` without any shift, shows the image
        in its place. A centred transform shows it there with other phases of k-space.
    """

    corner: tuple[bool, bool]
    plain: tuple[bool, bool]

    @classmethod
    def of(cls, kspace: np.ndarray, where: str | Path) -> "Centring":
        """Find the convention from slices of k-space, (..., ky, kx).

        Zero frequency is where the energy is largest. The image is taken to lie about the middle of the field of view;
        where its energy is the same everywhere the plain transform is.

        Raises
        ------
        FormatError
            When all is zero, or the largest energy is neither near the middle nor near the corner.
        """
        leading = tuple(range(kspace.ndim - 2))
        energy = (np.abs(kspace).astype(np.float64) ** 2).sum(axis=leading)
        if not np.isfinite(energy).all() or not energy.any():
            raise FormatError(
                expected_got("kspace", expected="signal", got="zeros or no numbers in the middle slices", where=where)
            )
        peak = np.unravel_index(int(np.argmax(energy)), energy.shape)
        corner = []
        for position, size in zip(map(int, peak), energy.shape, strict=True):
            to_corner, to_middle = min(position, size - position), abs(position - size // 2)
            if min(to_corner, to_middle) > max(1, _NEAR * size):
                raise FormatError(
                    expected_got(
                        "position of the largest energy of k-space",
                        expected=f"the middle {tuple(n // 2 for n in energy.shape)} or the corner (0, 0)",
                        got=tuple(map(int, peak)),
                        where=where,
                        fix="This is no k-space with both axes untransformed.",
                    )
                )
            corner.append(to_corner < to_middle)
        image = (np.abs(np.fft.ifft2(kspace, axes=_AXES)) ** 2).sum(axis=leading)
        return cls((corner[0], corner[1]), (_is_in_the_middle(image.sum(axis=1)), _is_in_the_middle(image.sum(axis=0))))

    def apply(self, kspace: np.ndarray) -> np.ndarray:
        """Return k-space (..., ky, kx) in the store's convention: the centred inverse transform shows the image.

        Magnitudes of the image are those that the convention of the file gives.
        """
        moved = np.fft.fftshift(kspace, axes=[axis for axis, at in zip(_AXES, self.corner, strict=True) if at])
        rows, columns = (_ramp(size) for size in kspace.shape[-2:])
        if self.plain[0]:
            moved = moved * rows[:, None]
        if self.plain[1]:
            moved = moved * columns
        return np.ascontiguousarray(moved, dtype=np.complex64)

    def described(self) -> dict[str, object]:
        """Return what was found, as attributes of the element."""
        return {
            "zero_frequency_in_file": ["corner" if at else "middle" for at in self.corner],
            "transform_in_file": ["plain" if plain else "centred" for plain in self.plain],
        }


def _ramp(size: int) -> np.ndarray:
    """Return the phases by which moving an image by half its size changes centred k-space; signs for an even size."""
    steps = np.arange(size) - size // 2
    if size % 2 == 0:
        return np.where(steps % 2, -1, 1).astype(np.float32)
    return np.exp(2j * np.pi * steps * (size // 2) / size).astype(np.complex64)


def _is_in_the_middle(energy: np.ndarray) -> bool:
    """Whether energy around an axis, which has no ends, lies about its middle, or is the same everywhere."""
    mean = complex((energy * np.exp(2j * np.pi * np.arange(len(energy)) / len(energy))).sum() / energy.sum())
    return abs(mean) < _DECIDED or mean.real < 0
