"""The classical methods by name. Nothing heavy is imported until one is used, so that commands can list them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mri_io.config import Config

__all__ = ["METHODS", "Method", "method_lines"]


@dataclass(frozen=True)
class Method:
    """A classical reconstruction.

    Attributes
    ----------
    summary
        One line for people who choose.
    function, config
        ``module:name`` of the function of (kspace, mask, maps, **configuration) that returns a
        `mri_recon.classical.Reconstruction`, and of its configuration.
    needs_maps
        Whether it needs coil maps; others combine by the root sum of squares without.
    default_maps
        The coil maps that it takes where none are named.
    series
        Whether it takes the frames of a series together, (frame, coil, ky, kx), and not one by one.
    """

    summary: str
    function: str
    config: str
    needs_maps: bool = True
    default_maps: str = "espirit"
    series: bool = False

    def load(self) -> "tuple[type[Config], Callable[..., Any]]":
        """Return configuration and function."""
        return _load(self.config), _load(self.function)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _method(summary: str, module: str, function: str, config: str, **more: Any) -> Method:
    place = f"mri_recon.classical.{module}"
    return Method(summary, f"{place}:{function}", f"{place}:{config}", **more)


METHODS: dict[str, Method] = {
    "zero-filled": _method(
        "transform with zeros where nothing was sampled",
        "zero_filled", "reconstruct_zero_filled", "ZeroFilledConfig", needs_maps=False,
    ),
    "grappa": _method(
        "missing lines from their neighbours, by kernels",
        "grappa", "grappa", "GrappaConfig", needs_maps=False, default_maps="none",
    ),
    "spirit": _method(
        "k-space that agrees with kernels over all neighbours",
        "spirit", "spirit", "SpiritConfig", needs_maps=False, default_maps="none",
    ),
    "cg-sense": _method("least squares by conjugate gradients", "cg_sense", "cg_sense", "CgSenseConfig"),
    "l1-wavelet": _method("compressed sensing: sparse in wavelets", "wavelet", "wavelet", "WaveletConfig"),
    "total-variation": _method(
        "compressed sensing: few edges", "total_variation", "total_variation", "TotalVariationConfig",
    ),
    "homodyne": _method(
        "partial Fourier by the phase of the centre, one step",
        "homodyne", "homodyne", "HomodyneConfig", needs_maps=False, default_maps="none",
    ),
    "pocs": _method(
        "partial Fourier by the phase of the centre, iterated",
        "pocs", "pocs", "PocsConfig", needs_maps=False, default_maps="none",
    ),
    "low-rank": _method(
        "series of few components in each place (locally low rank)",
        "low_rank", "low_rank", "LowRankConfig", series=True,
    ),
}  # fmt: skip
"""By the names that commands use."""


def method_lines() -> str:
    """Return a line for each method, for the help of commands."""
    width = max(map(len, METHODS))
    return "\n".join(f"{name:{width}}  {method.summary}" for name, method in METHODS.items())
