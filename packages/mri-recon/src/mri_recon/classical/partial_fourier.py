"""The pattern of a partial Fourier acquisition: which axis, which side, and the low-resolution phase it allows."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex
from torch import Tensor

from mri_recon.errors import ConfigError
from mri_recon.physics.fourier import ifft1c

__all__ = ["PartialFourier", "low_resolution", "with_phase_of"]


@dataclass(frozen=True)
class PartialFourier:
    """Where k-space was acquired along one axis, ``low`` to ``high`` (exclusive) of ``length`` positions.

    Attributes
    ----------
    axis
        -2 (ky) or -1 (kx).
    low, high, length
        The acquired run. It begins or ends at the edge of k-space, and holds the centre ``length // 2``.
    """

    axis: int
    low: int
    high: int
    length: int

    @classmethod
    def of(cls, mask: Tensor, axis: int | None, method: str) -> "PartialFourier":
        """Find it from a mask.

        Parameters
        ----------
        mask
            bool (batch, ky, kx), the same run in all; inside the run everything is sampled.
        axis
            -2 or -1, None: the one of which a side is missing.
        method
            Its name, for messages.

        Raises
        ------
        ConfigError
            When no side is missing, both axes have one, the run has gaps, or it ends before the centre.
        """
        if axis not in (None, -2, -1):
            raise ConfigError(f"{method}: expected axis -2 (ky), -1 (kx) or None, got {axis}.")
        union, found = mask.any(dim=0), []
        for candidate in (-2, -1):
            lines = torch.nonzero(union.any(dim=-1 if candidate == -2 else -2))[:, 0]
            low, high = int(lines[0]), int(lines[-1]) + 1
            if high - low < mask.shape[candidate]:
                found.append(cls(candidate, low, high, mask.shape[candidate]))
        if axis is not None:
            found = [one for one in found if one.axis == axis]
        if len(found) != 1:
            raise ConfigError(
                f"{method}: expected k-space with a side missing along one axis, found {len(found)} such axes. "
                "Fully sampled data need no partial Fourier reconstruction; for two axes name one."
            )
        one = found[0]
        if one.low > 0 and one.high < one.length:
            raise ConfigError(
                f"{method}: expected positions {one.low} to {one.high} of {one.length} to reach an edge of k-space. "
                "Both sides are missing, which is a smaller matrix: crop k-space to it first."
            )
        other = union.any(dim=one.axis)
        places = torch.nonzero(other)[:, 0]
        if int(other.sum()) < int(places[-1] - places[0]) + 1:
            name = "kx" if one.axis == -2 else "ky"
            raise ConfigError(
                f"{method}: expected every position along {name} sampled, found gaps. "
                "Fill undersampled lines first, by GRAPPA or SPIRiT."
            )
        run = mask.narrow(one.axis, one.low, one.high - one.low)
        if not bool((mask == mask[:1]).all()):
            raise ConfigError(f"{method}: expected one mask for all slices of a batch. Reconstruct them one by one.")
        if not bool((run == run.select(one.axis, 0).unsqueeze(one.axis)).all()):
            raise ConfigError(
                f"{method}: expected every line between {one.low} and {one.high} sampled alike. "
                "Fill undersampled lines first, by GRAPPA or SPIRiT."
            )
        if one.half < 1:
            raise ConfigError(
                f"{method}: expected samples on both sides of the centre {one.length // 2}, got {one.low} to "
                f"{one.high}. The phase cannot be found from less than half of k-space; use zero filling."
            )
        return one

    @property
    def centre(self) -> int:
        """Position of zero frequency."""
        return self.length // 2

    @property
    def half(self) -> int:
        """Number of positions on the short side: the symmetric part reaches so far from the centre."""
        return min(self.centre - self.low, self.high - 1 - self.centre)

    def without_ends(self) -> "PartialFourier | None":
        """Return the pattern without the outer quarter of the short side, None where too little would be left."""
        hidden = max(1, self.half // 4)
        if self.half - hidden < 1:
            return None
        if self.low > 0:
            return replace(self, low=self.low + hidden)
        return replace(self, high=self.high - hidden)

    def distance(self, device: torch.device) -> Tensor:
        """Return frequencies that grow towards the side that was acquired whole, 0 at the centre."""
        k = torch.arange(self.length, device=device) - self.centre
        return -k if self.low == 0 else k

    def acquired(self, device: torch.device) -> Tensor:
        """Return 1 where acquired, (length,), real."""
        k = torch.arange(self.length, device=device)
        return ((k >= self.low) & (k < self.high)).float()

    def along(self, weights: Tensor, values: Tensor) -> Tensor:
        """Shape weights (length,) to multiply k-space, in its precision."""
        shaped = weights.to(values.real.dtype)
        return shaped[:, None] if self.axis == -2 else shaped


def low_resolution(kspace: Complex[Tensor, "*batch ky kx"], part: PartialFourier) -> Complex[Tensor, "*batch y x"]:
    """Return the image of the symmetric part of k-space along the partial axis, with a Hamming window against ringing.

    The other axis has been transformed already, and stays as sharp as it is.
    """
    k = torch.arange(part.length, device=kspace.device) - part.centre
    window = 0.54 + 0.46 * torch.cos(torch.pi * k / (part.half + 0.5))
    window = torch.where(k.abs() <= part.half, window, torch.zeros_like(window))
    return ifft1c(kspace * part.along(window, kspace), part.axis)


def with_phase_of(image: Complex[Tensor, "*batch y x"], low: Complex[Tensor, "*batch y x"]) -> Tensor:
    """Return the part of an image that has the phase of another, as it is where that is zero."""
    size = low.abs()
    phase = torch.where(size > 0, low / torch.where(size > 0, size, torch.ones_like(size)), torch.ones_like(low))
    return (image * phase.conj()).real * phase
