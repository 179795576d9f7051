"""Coil maps of every volume of a cohort, into the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mri_io.config import Config
from mri_io.prep import PrepSummary, Step, already_there, prepare_cohort, result_path
from mri_io.schema import Provenance
from mri_io.store import Volume
from mri_io.torch import check_device
from mri_recon.calibration import (
    EspiritConfig,
    InatiConfig,
    JsenseConfig,
    LowResolutionConfig,
    WalshConfig,
    espirit,
    inati,
    jsense,
    low_resolution,
    walsh,
)
from mri_recon.errors import ConfigError
from mri_recon.memory import calibration_memory
from mri_recon.physics import calibration_region
from mri_recon.planes import Planes

__all__ = ["CALIBRATIONS", "CalibrateOptions", "calibrate", "calibrate_step"]

CalibrationConfig = EspiritConfig | WalshConfig | InatiConfig | LowResolutionConfig | JsenseConfig

CALIBRATIONS: dict[str, tuple[type[CalibrationConfig], Callable[..., torch.Tensor]]] = {
    "espirit": (EspiritConfig, espirit),
    "walsh": (WalshConfig, walsh),
    "inati": (InatiConfig, inati),
    "low-resolution": (LowResolutionConfig, low_resolution),
    "jsense": (JsenseConfig, jsense),
}
"""Methods by the name that commands use: configuration and function of one slice."""


class CalibrateOptions(Config):
    """Options of the step ``calibrate``, those of `calibrate`."""

    method: Literal["espirit", "walsh", "inati", "low-resolution", "jsense"] = "espirit"
    espirit: EspiritConfig = EspiritConfig()
    walsh: WalshConfig = WalshConfig()
    inati: InatiConfig = InatiConfig()
    low_resolution: LowResolutionConfig = LowResolutionConfig()
    jsense: JsenseConfig = JsenseConfig()
    name: str | None = None
    mask: str | None = None
    device: str = "cpu"
    replace: bool = False

    @property
    def target(self) -> str:
        """Name of the result."""
        return self.name or self.method

    @property
    def chosen(self) -> CalibrationConfig:
        """Configuration of the method."""
        chosen: CalibrationConfig = getattr(self, self.method.replace("-", "_"))
        return chosen


def _map_sets(config: CalibrationConfig) -> int:
    return config.maps if isinstance(config, EspiritConfig) else 1


class _CalibrateVolume:
    """Calibrate one volume; runs in a worker."""

    def __init__(
        self, method: str, config: CalibrationConfig, name: str, mask: str | None, device: str, *, replace: bool
    ) -> None:
        self.method, self.config, self.name, self.mask = method, config, name, mask
        self.device, self.replace = device, replace

    def __call__(self, volume: Volume) -> dict[str, Any]:
        planes, made, there = self.check(volume)
        if there:
            return {"status": "skipped", "volume": volume.id}
        shape, dims = planes.shape_of_maps(_map_sets(self.config))
        acquired = planes.samples.acquired
        with volume.writer(
            f"sens/{self.name}",
            shape=shape,
            dtype=np.complex64,
            dims=dims,
            provenance=made,
            replace=self.replace,
            attributes={
                "calibration_mask": self.mask or ("none" if acquired is None else "acquired"),
                **planes.facts(),
            },
        ) as writer:
            found = (self._maps_of_plane(planes, number) for number in range(len(planes)))
            for block in planes.blocks_of_maps(found):
                writer.append(block)
        return {"status": "done", "volume": volume.id}

    def _maps_of_plane(self, planes: Planes, number: int) -> np.ndarray:
        """Return the maps of a plane, (map, coil, rows, columns); zeros where nothing was measured."""
        coils, *grid = planes.shape
        measured, mask = planes.merged(number)
        region = limited_region(mask, (grid[0], grid[1]), self.config.calibration)
        if not measured.any():
            return np.zeros((_map_sets(self.config), coils, *grid), np.complex64)
        centre = measured[(slice(None), *region)].to(self.device)
        maps: np.ndarray = CALIBRATIONS[self.method][1](centre, tuple(grid), self.config).cpu().numpy()
        if not maps.any():
            raise ConfigError(f"slice {number}: {_nowhere(self.config, centre.shape)}")
        return maps

    def check(self, volume: Volume) -> tuple[Planes, Provenance, bool]:
        """Return the planes, how their maps come about, and whether they are there; raise where they cannot be."""
        kspace = volume["kspace"]
        planes = Planes(volume, kspace, None if self.mask is None else volume[f"mask/{self.mask}"])
        made = Provenance.of("mri-recon", self.method, self.config, inputs=[kspace, *planes.samples.masks])
        return planes, made, already_there(volume, f"sens/{self.name}", made, replace=self.replace)


def _nowhere(config: CalibrationConfig, shape: tuple[int, ...]) -> str:
    """Return why there are no maps at any pixel."""
    if isinstance(config, EspiritConfig):
        return (
            f"{shape[1]} x {shape[2]} calibration positions are too few for kernels of {config.kernel}: no pixel "
            f"passes the crop at {config.crop}. Use more lines, or less: --set kernel=4, --set crop=0.8"
        )
    return f"no pixel is within the support at {config.support:g}. Use less: --set support=0.01"


def limited_region(mask: np.ndarray, shape: tuple[int, int], width: int) -> tuple[slice, slice]:
    """Return the fully sampled central rectangle of a mask, at most `width` along each axis.

    Parameters
    ----------
    mask
        (ky, kx), with a length of one along fully sampled axes.
    shape
        Of k-space.
    width
        Largest width.
    """
    region = calibration_region(mask)
    limits = []
    for part, length in zip(region, shape, strict=True):
        low, high, _ = part.indices(length)
        middle = length // 2
        limits.append(slice(max(low, middle - width // 2), min(high, middle - width // 2 + width)))
    return limits[0], limits[1]


def calibrate(
    cohort: str | Path,
    *,
    method: str = "espirit",
    config: Config | None = None,
    name: str | None = None,
    mask: str | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    device: str = "cpu",
    replace: bool = False,
) -> PrepSummary:
    """Estimate coil maps of every volume and write ``sens/<name>``.

    A slice of zeros, as some scanners add, gets maps of zeros; a volume of nothing else fails.

    Parameters
    ----------
    cohort
        The cohort's folder.
    method
        A key of `CALIBRATIONS`.
    config
        The method's configuration, by default its defaults.
    name
        Of the result, by default the method's.
    mask
        Name of a stored mask: only its fully sampled centre is used, as if the scan had been accelerated so. Of
        ``mask/acquired``, where there is one, always; else all of k-space is taken as acquired.
    split, part
        Restricts to a part of a split, of ``default`` where none is named.
    scheduler, device
        See `mri_io.prep.prepare_cohort`; ``"cuda"`` works with ``sync``.
    replace
        Replace maps that exist. Without it those made from the same data are skipped.

    Returns
    -------
    mri_io.prep.PrepSummary

    Raises
    ------
    ConfigError
        For an unknown method or device, another method's configuration, or a name that cannot be one.
    ElementNotFoundError
        When no volume is chosen.
    """
    target = name or method
    work = _work(method, config, target, mask, device, replace=replace)
    check_device(device, scheduler)
    return prepare_cohort(
        cohort,
        work,
        split=split,
        part=part,
        scheduler=scheduler,
        description=_title(target),
        memory=lambda volume: calibration_memory(volume, _map_sets(work.config)),
        check=work.check,
    )


def _work(
    method: str, config: Config | None, name: str, mask: str | None, device: str, *, replace: bool
) -> _CalibrateVolume:
    """Return the work on one volume, its options checked."""
    if method not in CALIBRATIONS:
        raise ConfigError(f"method: expected one of {', '.join(CALIBRATIONS)}, got {method!r}.")
    kind = CALIBRATIONS[method][0]
    chosen = kind() if config is None else config
    if not isinstance(chosen, kind):
        raise ConfigError(f"config: expected {kind.__name__} for {method}, got {type(chosen).__name__}.")
    result_path("sens", name)
    return _CalibrateVolume(method, chosen, name, mask, device, replace=replace)


def _title(name: str) -> str:
    return f"calibrate {name}"


def calibrate_step() -> Step:
    """Return the step ``calibrate`` of ``mri-cli prep``."""

    def work(options: CalibrateOptions) -> _CalibrateVolume:
        return _work(
            options.method, options.chosen, options.target, options.mask, options.device, replace=options.replace
        )

    def run(volume: Volume, options: CalibrateOptions) -> dict[str, Any]:
        check_device(options.device)
        return work(options)(volume)

    return Step(
        name="calibrate",
        summary="coil sensitivity maps sens/NAME from the centre of k-space",
        options=CalibrateOptions,
        run=run,
        memory=lambda volume, options: calibration_memory(volume, _map_sets(options.chosen)),
        title=lambda options: _title(options.target),
        check=lambda volume, options: work(options).check(volume),
    )
