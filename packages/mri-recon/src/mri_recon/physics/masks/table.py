"""The kinds of masks that commands and configurations name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mri_recon.errors import ConfigError
from mri_recon.physics.masks.common import MaskSettings, acceleration
from mri_recon.physics.masks.gaussian import Gaussian2dConfig, GaussianConfig, gaussian_2d_mask, gaussian_mask
from mri_recon.physics.masks.kt import KtEquispacedConfig, KtGaussianConfig, kt_equispaced_mask, kt_gaussian_mask
from mri_recon.physics.masks.lattice import CaipirinhaConfig, LatticeConfig, caipirinha_mask, equispaced_2d_mask
from mri_recon.physics.masks.lines import (
    EquispacedConfig,
    LinesConfig,
    LineSettings,
    equispaced_fraction_mask,
    equispaced_mask,
    random_mask,
)
from mri_recon.physics.masks.partial_fourier import PartialFourierConfig, all_lines, partial_fourier
from mri_recon.physics.masks.poisson import PoissonConfig, poisson_mask
from mri_recon.physics.masks.radial import RadialConfig, radial_mask
from mri_recon.physics.masks.spiral import SpiralConfig, spiral_mask

__all__ = ["MASKS", "MaskKind"]

LINES, POINTS, SERIES = ("line",), ("ky", "kx"), ("frame", "line")


@dataclass(frozen=True)
class MaskKind:
    """A kind of mask: its function, its parameters, and what it is a pattern of.

    Calling it calls the function, e.g. ``MASKS["poisson"]((230, 180), 8, seed=1)``.

    Parameters
    ----------
    function
        Of a length or a shape and the fields of a configuration, but for `MaskSettings`' and ``axis``.
    config
        The parameters with their defaults.
    dims
        ``line`` stands for the axis of phase encoding that is chosen.
    """

    function: Callable[..., np.ndarray]
    config: type[MaskSettings]
    dims: tuple[str, ...]

    def __call__(self, *args: Any, **options: Any) -> np.ndarray:
        """Call the function."""
        return self.function(*args, **options)

    def dims_of(self, config: MaskSettings) -> tuple[str, ...]:
        """Return the names of the mask's dimensions."""
        axis = config.axis if isinstance(config, LineSettings) else ""
        return tuple(axis if dim == "line" else dim for dim in self.dims)

    def make(self, sizes: Mapping[str, int], config: MaskSettings) -> np.ndarray:
        """Return the mask, uint8, of the dimensions `dims_of`.

        Parameters
        ----------
        sizes
            Lengths of the dimensions of k-space by name.
        config
            Of the type `config`.

        Raises
        ------
        ConfigError
            When k-space lacks a dimension, the acceleration cannot be reached, or nothing is left.
        """
        dims = self.dims_of(config)
        if missing := [dim for dim in dims if dim not in sizes]:
            raise ConfigError(
                f"mask: expected k-space with the dimensions {', '.join(dims)}, got {', '.join(sizes)}: no "
                f"{', '.join(missing)}. Choose another kind."
            )
        shape = tuple(sizes[dim] for dim in dims)
        told = set(type(config).model_fields) - {"axis", "partial_fourier"}
        options = {name: getattr(config, name) for name in told}
        mask = self.function(shape[0] if len(shape) == 1 else shape, **options)
        mask = partial_fourier(mask, config.partial_fourier)
        acceleration(mask)  # refuses a mask of nothing
        return mask


MASKS: dict[str, MaskKind] = {
    "equispaced": MaskKind(equispaced_mask, EquispacedConfig, LINES),
    "equispaced-fraction": MaskKind(equispaced_fraction_mask, EquispacedConfig, LINES),
    "random": MaskKind(random_mask, LinesConfig, LINES),
    "gaussian": MaskKind(gaussian_mask, GaussianConfig, LINES),
    "partial-fourier": MaskKind(all_lines, PartialFourierConfig, LINES),
    "equispaced-2d": MaskKind(equispaced_2d_mask, LatticeConfig, POINTS),
    "caipirinha": MaskKind(caipirinha_mask, CaipirinhaConfig, POINTS),
    "gaussian-2d": MaskKind(gaussian_2d_mask, Gaussian2dConfig, POINTS),
    "poisson": MaskKind(poisson_mask, PoissonConfig, POINTS),
    "radial": MaskKind(radial_mask, RadialConfig, POINTS),
    "spiral": MaskKind(spiral_mask, SpiralConfig, POINTS),
    "kt-equispaced": MaskKind(kt_equispaced_mask, KtEquispacedConfig, SERIES),
    "kt-gaussian": MaskKind(kt_gaussian_mask, KtGaussianConfig, SERIES),
}
"""Masks by the name that commands and configurations use."""
