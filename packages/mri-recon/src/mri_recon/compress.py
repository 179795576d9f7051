"""Coil compression of every volume of a cohort, into a cohort of the same volumes.

A volume has one k-space, from which all that is made of it follows; so compressed k-space stands in a volume of its
own, where every command finds it under the name that it knows. Masks, images and label maps go along; coil maps do
not, since they are of other coils.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from mri_io.config import Config
from mri_io.prep import PrepSummary, prepare_cohort
from mri_io.schema import Provenance
from mri_io.store import Element, Volume, create_cohort, open_cohort
from mri_recon.calibrate import limited_region
from mri_recon.errors import ConfigError, FormatError
from mri_recon.memory import compression_memory
from mri_recon.physics.compression import CoilCompression, geometric_compression, svd_compression
from mri_recon.sampling import Samples

__all__ = ["CompressionConfig", "compress"]

_ALONG = ("mask", "image", "recon", "seg", "qmap")
"""Types of elements that do not depend on the coils."""


class CompressionConfig(Config):
    """Parameters of coil compression."""

    method: Literal["svd", "gcc"] = Field(
        default="svd", description="one matrix per volume, or one per position along a fully sampled axis"
    )
    coils: int | None = Field(default=None, ge=1, description="number of virtual coils; none: what the energy needs")
    energy: float = Field(default=0.99, gt=0, le=1, description="share of the energy that is kept")
    calibration: int = Field(default=24, ge=4, description="largest width of the region that the matrices come from")


class _CompressVolume:
    """Compress one volume; runs in a worker."""

    def __init__(self, target: str, config: CompressionConfig, *, replace: bool) -> None:
        self.target, self.config, self.replace = target, config, replace

    def __call__(self, volume: Volume) -> dict[str, Any]:
        samples, made = self.check(volume)
        cohort = open_cohort(self.target)
        if volume.id in cohort and not self.replace:
            if cohort[volume.id].is_current("kspace", made):
                return {"status": "skipped", "volume": volume.id}
            raise ConfigError(
                f"{cohort.path}: {volume.id} exists already and came from another computation. Give another cohort, "
                "or --replace"
            )
        compression = self._compression(volume["kspace"], samples)
        with cohort.create_volume(
            volume.id,
            subject_id=volume.subject_id,
            source=volume.source,
            header=volume.header,
            replace=self.replace,
        ) as derived:
            _write_kspace(derived, volume["kspace"], compression, made)
            for element in volume.elements().values():
                if element.type in _ALONG:
                    _copy(derived, element)
        return {"status": "done", "volume": volume.id, "coils": compression.coils, "kept": compression.kept}

    def check(self, volume: Volume) -> tuple[Samples, Provenance]:
        """Return what was sampled and how the result comes about; raise where it cannot be."""
        kspace = volume["kspace"]
        if kspace.dims != ("slice", "coil", "ky", "kx"):
            raise ConfigError(
                f"{kspace.folder}: expected dimensions (slice, coil, ky, kx), got {kspace.dims}. For others: "
                "mri_recon.physics.compression"
            )
        if self.config.coils is not None and self.config.coils > kspace.shape[1]:
            raise ConfigError(
                f"coils: expected at most {kspace.shape[1]}, the number of coils of {volume.id}, "
                f"got {self.config.coils}."
            )
        samples = Samples(volume, kspace)
        return samples, Provenance.of("mri-recon", "compress", self.config, inputs=[kspace, *samples.masks])

    def _compression(self, kspace: Element, samples: Samples) -> CoilCompression:
        """Return the compression of the calibration regions of all slices together."""
        if self.config.method == "svd":
            shape = kspace.shape[-2:]
            regions = [limited_region(samples.of_slice(n), shape, self.config.calibration) for n in range(len(kspace))]
            data = torch.stack(list(_centres(kspace, _shared(regions))))
            return svd_compression(_scaled(data, kspace), self.config.coils, self.config.energy)
        axis = _full_axis(samples, len(kspace), str(kspace.folder))
        regions = []
        for number in range(len(kspace)):
            rows, columns = limited_region(samples.of_slice(number), kspace.shape[-2:], self.config.calibration)
            regions.append((rows, slice(0, kspace.shape[-1])) if axis == -1 else (slice(0, kspace.shape[-2]), columns))
        data = torch.stack(list(_centres(kspace, _shared(regions))))
        return geometric_compression(_scaled(data, kspace), self.config.coils, self.config.energy, axis=axis)


def _shared(regions: list[tuple[slice, slice]]) -> tuple[slice, slice]:
    """Return the rectangle that all slices have."""
    rows, columns = (
        slice(max(part.start for part in along), min(part.stop for part in along))
        for along in zip(*regions, strict=True)
    )
    return rows, columns


def _centres(kspace: Element, region: tuple[slice, slice]) -> Iterator[torch.Tensor]:
    for number in range(len(kspace)):
        yield torch.from_numpy(np.ascontiguousarray(kspace[number][(slice(None), *region)]))


def _scaled(data: torch.Tensor, kspace: Element) -> torch.Tensor:
    largest = data.abs().max()
    if not largest > 0:
        raise FormatError(f"{kspace.folder}: expected a signal, got zeros only. Leave the volume out.")
    return data / largest


def _full_axis(samples: Samples, slices: int, where: str) -> Literal[-2, -1]:
    """Return the axis that is fully sampled in all slices, the readout."""
    masks = [samples.of_slice(number) for number in range(slices)]
    # A mask of one row samples whole columns, ky; kx is whole where that row is, or the mask has one column.
    if all(mask.shape[1] == 1 or mask.all() for mask in masks):
        return -1
    if all(mask.shape[0] == 1 for mask in masks):
        return -2
    raise ConfigError(
        f"{where}: gcc needs an axis that is fully sampled, got a mask that varies along both. Use --set method=svd"
    )


def _write_kspace(derived: Volume, kspace: Element, compression: CoilCompression, made: Provenance) -> None:
    slices, _, ny, nx = kspace.shape
    with derived.writer(
        "kspace",
        shape=(slices, compression.coils, ny, nx),
        dtype=np.complex64,
        dims=kspace.dims,
        provenance=made,
        attributes={"energy_kept": compression.kept},
    ) as writer:
        for number in range(slices):
            writer.append(compression.apply(torch.from_numpy(kspace[number])).numpy()[None])


def _copy(derived: Volume, element: Element) -> None:
    derived.write(
        element.path,
        element.numpy(),
        dims=element.dims,
        provenance=Provenance.of("mri-recon", "copy", inputs=[element]),
        affine=element.affine,
        labels=element.labels or None,
        attributes={"unit": element.attributes["unit"]} if "unit" in element.attributes else None,
    )


def compress(
    cohort: str | Path,
    out: str | Path,
    *,
    config: CompressionConfig | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    replace: bool = False,
) -> PrepSummary:
    """Compress the coils of every volume and write the volumes to another cohort.

    Parameters
    ----------
    cohort
        The cohort's folder.
    out
        Folder of the other cohort, made where there is none.
    config
        Parameters; by default `CompressionConfig()`.
    split, part
        Restricts to a part of a split, of ``default`` where none is named.
    scheduler
        See `mri_io.prep.prepare_cohort`.
    replace
        Replace volumes that exist, with all that was made of them. Without it those of the same computation are
        skipped.

    Returns
    -------
    mri_io.prep.PrepSummary

    Raises
    ------
    ConfigError
        When both cohorts are the same, or no volume can be compressed so.
    ElementNotFoundError
        When no volume is chosen.
    """
    source = open_cohort(cohort)
    if Path(out).resolve() == Path(cohort).resolve():
        raise ConfigError(f"out: expected another folder than that of the cohort, got {out}.")
    work = _CompressVolume(str(Path(out).absolute()), config or CompressionConfig(), replace=replace)
    create_cohort(out)
    return prepare_cohort(
        source,
        work,
        split=split,
        part=part,
        scheduler=scheduler,
        description="compress coils",
        memory=lambda volume: compression_memory(volume, work.config.calibration),
        check=work.check,
    )
