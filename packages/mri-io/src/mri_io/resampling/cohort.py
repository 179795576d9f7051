"""Bring an element of every volume to another grid, into the store."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from mri_io.config import Config, validate_config
from mri_io.errors import ConfigError, ElementNotFoundError, ShapeError, expected_got
from mri_io.prep import PrepSummary, already_there, prepare_cohort, result_path
from mri_io.prep.cohort import check_choice
from mri_io.resampling.grids import BLOCK_VOXELS, Grid, check_spacing, slabs, spaced_grid
from mri_io.resampling.images import Interpolation, resampled_image
from mri_io.resampling.labels import LabelResult, resampled_labels
from mri_io.schema import Provenance
from mri_io.schema.elements import SERIES, element_type
from mri_io.store import Cohort, Element, Volume, open_cohort
from mri_io.store.checks import check_siblings
from mri_io.store.remote.paths import AnyPath

__all__ = ["ResampleConfig", "resample"]

BLOCK_VOXEL_BYTES = 300
"""What a voxel of a block of the target takes: its coordinates, samples, competing labels and scores."""
COMPETITOR_BYTES, BORDER_VOXEL_BYTES = 64, 32
"""What is held over the whole map of each label that competes for a voxel, and of the voxel."""
COMPETITORS = 4
"""Of a voxel of the target, in parcellations without gaps on finer grids (3.2 were measured). On coarser grids there
are more of them, but fewer than voxels of the source."""
_OF_THE_STORE = {"type", "type_version", "name", "provenance", "commit", "affine", "labels", "metadata_sha256"}


class ResampleConfig(Config):
    """How an element is brought to another grid; one of `to` and `spacing` is given."""

    to: str | None = None
    """Element of the same volume whose grid is taken."""
    spacing: tuple[float, float, float] | None = None
    """Voxel sizes in mm along (x, y, slice), over the element's own field of view."""
    method: Literal["bspline", "linear", "nearest", "label"] | None = None
    """Of images and maps ``bspline``, ``linear`` or ``nearest``, of label maps ``label`` or ``nearest``; by default the
    first."""

    @field_validator("spacing")
    @classmethod
    def _positive(cls, spacing: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if spacing is not None:
            check_spacing(spacing)
        return spacing


def resample(
    cohort: str | AnyPath | Cohort,
    element: str,
    *,
    to: str | None = None,
    spacing: tuple[float, float, float] | None = None,
    method: str | None = None,
    name: str | None = None,
    volumes: list[str] | None = None,
    split: str | None = None,
    part: str | None = None,
    scheduler: str = "sync",
    replace: bool = False,
) -> PrepSummary:
    """Bring an element to another grid in every volume that has it, and write ``<type>/<name>``.

    Parameters
    ----------
    cohort
        The cohort or its folder.
    element
        An image, reconstruction, quantitative map or label map, or a series of them.
    to, spacing, method
        See `ResampleConfig`.
    name
        Of the result, by default ``<name>-to-<name of the other>`` or ``<name>-<spacing>mm``.
    volumes
        Ids; by default those that have the element, of `part` of `split` where it is given.
    split, part, scheduler
        See `mri_io.prep.prepare_cohort`.
    replace
        Replace results that exist. Without it those made from the same data are skipped.

    Returns
    -------
    mri_io.prep.PrepSummary

    Raises
    ------
    ConfigError
        For an element that is no image, a method that does not fit it, a name that cannot be one, a split without a
        part, or a part beside volumes; where it cannot be in any volume, because none has `to`, say.
    ElementNotFoundError
        When no volume has the element.
    """
    config = validate_config(ResampleConfig, {"to": to, "spacing": spacing, "method": method}, where="resample")
    target = result_path(element.partition("/")[0], name or _default_name(element, config))
    _check(element, config, target)
    check_choice(volumes, split, part)
    opened = cohort if isinstance(cohort, Cohort) else open_cohort(cohort)
    chosen = _having(opened, element, split, part) if volumes is None else volumes
    if not chosen:
        raise ElementNotFoundError(
            f"{opened.path}: no volume has an element {element!r}. List them: mri-cli ls {opened.path}"
        )
    work = _ResampleVolume(element, config, target, replace=replace)
    summary = prepare_cohort(
        opened,
        work,
        volumes=chosen,
        scheduler=scheduler,
        description=f"resample {target}",
        memory=work.memory,
        check=work.check,
    )
    for result in summary.results:
        if missed := result.get("missed"):
            numbers = ", ".join(map(str, missed))
            summary.notes.append(f"{result['volume']}: labels {numbers}: volumes are off by more than half a voxel")
    return summary


def _having(cohort: Cohort, element: str, split: str | None, part: str | None) -> list[str]:
    """Return the ids of volumes that have an element, and of damaged ones, so that these errors are recorded."""
    damaged: list[str] = []
    found = cohort.volumes(split, part, on_damage=lambda volume_id, _: damaged.append(volume_id))
    having = [volume.id for volume in found if element in volume]
    return sorted([*having, *damaged]) if having else []


def _default_name(element: str, config: ResampleConfig) -> str:
    own = element.partition("/")[2]
    if config.to is not None:
        return f"{own}-to-{config.to.partition('/')[2]}"
    return f"{own}-{'x'.join(f'{size:g}' for size in config.spacing or ())}mm"


def _check(element: str, config: ResampleConfig, target: str) -> None:
    """Raise ConfigError for what cannot be, whatever the volumes hold."""
    kind = element_type(element)
    if not kind.image_like:
        raise ConfigError(expected_got("element", expected="an image, recon, qmap or seg", got=element))
    if (config.to is None) == (config.spacing is None):
        got = "neither" if config.to is None else "both"
        raise ConfigError(expected_got("grid", expected="one of --to and --spacing", got=got))
    methods = ("label", "nearest") if kind.labelled else ("bspline", "linear", "nearest")
    if config.method is not None and config.method not in methods:
        raise ConfigError(expected_got(f"--method of {element}", expected=methods, got=config.method))
    if target in (element, config.to):
        raise ConfigError(expected_got("--name", expected="one of its own", got=f"that of {target}"))


class _ResampleVolume:
    """Resample one element of one volume; runs in a worker."""

    def __init__(self, element: str, config: ResampleConfig, target: str, *, replace: bool) -> None:
        self.element, self.config, self.target, self.replace = element, config, target, replace

    def __call__(self, volume: Volume) -> dict[str, Any]:
        element, made, there = self.check(volume)
        if there:
            return {"status": "skipped", "volume": volume.id}
        source, target = self._grids(volume, element)
        coverage = _coverage(source, target)
        if not coverage:
            where = volume.path / self.element
            raise ConfigError(
                expected_got("field of view", expected=f"one that meets {self.target}", got=0, where=where)
            )
        if element.type == "seg":
            missed = self._write_labels(volume, element, source, target, made, coverage)
            return {"status": "done", "volume": volume.id, "missed": missed}
        self._write_image(volume, element, source, target, made, coverage)
        return {"status": "done", "volume": volume.id}

    def check(self, volume: Volume) -> tuple[Element, Provenance, bool]:
        """Return the element, how the result comes about, and whether it is there; raise where it cannot be made."""
        element = volume[self.element]
        inputs = [element] if self.config.to is None else [element, volume[self.config.to]]
        made = Provenance.of("mri-io", "resample", self.config, inputs=inputs)
        there = already_there(volume, self.target, made, replace=self.replace)
        if not there:
            _, target = self._grids(volume, element)
            if element.type == "seg":
                self._check_labels(volume, element, target)
        return element, made, there

    def _check_labels(self, volume: Volume, element: Element, target: Grid) -> None:
        """Raise ConfigError where no image of the volume lies on the grid that a label map is brought to."""
        siblings = {path: other for path, other in volume.elements().items() if path != self.target}
        sizes = dict(zip(element.dims, (*element.shape[:-3], *target.shape), strict=True))
        where = f"{volume.path}: {self.target}"
        try:
            check_siblings(self.target, sizes, target.affine, siblings, where, recon_matrix=volume.header.recon_matrix)
        except ShapeError as error:
            if self.config.spacing is None:
                raise ConfigError(str(error)) from None
            images = (other for other in siblings.values() if other.type == "image" and other.affine is not None)
            image = next((other.path for other in images if len(other.shape) == 3), "image/X")
            spacing = ",".join(f"{size:g}" for size in self.config.spacing)
            fix = (
                f"Resample an image first: mri-cli resample COHORT {image} --spacing {spacing} --name iso, then "
                f"{self.element} --to image/iso"
            )
            expected = "that of an image of the volume"
            got = f"{target.shape} of {spacing} mm"
            raise ConfigError(expected_got("grid", expected=expected, got=got, where=where, fix=fix)) from None

    def memory(self, volume: Volume) -> int:
        """Return an upper bound of the bytes held: that of grids at right angles to each other."""
        element = volume[self.element]
        source, target = self._grids(volume, element)
        # In float64: values, smoothed values and coefficients, of maps weights and places of the nearest.
        working = 4 * math.prod(source.shape) * (8 if element.type != "qmap" else 8 + 3)
        block = BLOCK_VOXEL_BYTES * max(BLOCK_VOXELS, target.shape[1] * target.shape[2])
        return working + block + (self._labels_memory(element, source, target) if element.type == "seg" else 0)

    def _labels_memory(self, element: Element, source: Grid, target: Grid) -> int:
        """Return what the results of all members take, and the competition for voxels at borders of one of them."""
        results = math.prod(element.shape[:-3]) * math.prod(target.shape) * element.dtype.itemsize
        if self.config.method == "nearest":
            return results
        competitors = min(len(element.labels) + 1, COMPETITORS) * math.prod(target.shape) + math.prod(source.shape)
        return results + competitors * COMPETITOR_BYTES + math.prod(target.shape) * BORDER_VOXEL_BYTES

    def _grids(self, volume: Volume, element: Element) -> tuple[Grid, Grid]:
        source = Grid.of(element)
        if self.config.to is not None:
            return source, Grid.of(volume[self.config.to])
        return source, spaced_grid(source, self.config.spacing or ())

    def _write_image(
        self, volume: Volume, element: Element, source: Grid, target: Grid, made: Provenance, coverage: float
    ) -> None:
        method: Interpolation = "bspline"
        if self.config.method in ("bspline", "linear", "nearest"):
            method = self.config.method
        keeps = element.dtype.kind in "fc" or method == "nearest"
        dtype = element.dtype if keeps else np.dtype(np.float32)
        with volume.writer(
            self.target, **self._result(element, target, dtype, made, method, {"coverage": coverage})
        ) as writer:
            for member in _members(element):
                read = _reader(element, member)
                for block in resampled_image(read, dtype, source, target, method, gaps=element.type == "qmap"):
                    writer.append(block)

    def _write_labels(
        self, volume: Volume, element: Element, source: Grid, target: Grid, made: Provenance, coverage: float
    ) -> list[int]:
        """Write the label map; return the ids whose volumes could not be kept."""
        method = self.config.method or "label"
        found: list[LabelResult] = []
        for member in _members(element):
            read = _reader(element, member)
            if method == "nearest":
                blocks = resampled_image(read, element.dtype, source, target, "nearest")
                found.append(LabelResult(np.concatenate(list(blocks))))
            else:
                found.append(resampled_labels(read, element.dtype, source, target))
        resampled: dict[str, Any] = {"coverage": coverage}
        if method == "label":
            resampled["volume_mm3"] = _volumes(found, target.voxel_volume)
            resampled["volume_missed"] = sorted({number for result in found for number in result.missed})
        with volume.writer(
            self.target,
            labels=element.labels,
            **self._result(element, target, element.dtype, made, method, resampled),
        ) as writer:
            for result in found:
                writer.append(result.array)
        return list(resampled.get("volume_missed", []))

    def _result(
        self,
        element: Element,
        target: Grid,
        dtype: np.dtype[Any],
        made: Provenance,
        method: str,
        resampled: dict[str, Any],
    ) -> dict[str, Any]:
        """Return what `Volume.writer` takes; attributes are those of the element, and how it was resampled."""
        own = element_type(element.path).attributes
        kept = {key: value for key, value in element.attributes.items() if key not in _OF_THE_STORE | own.keys()}
        return {
            "shape": (*element.shape[:-3], *target.shape),
            "dims": element.dims,
            "dtype": dtype,
            "affine": target.affine,
            "provenance": made,
            "attributes": {**kept, "resampled": {"from": element.path, "method": method, **resampled}},
            "replace": self.replace,
        }


def _members(element: Element) -> Iterator[tuple[int, ...]]:
    yield from np.ndindex(*[size for name, size in zip(element.dims, element.shape, strict=True) if name in SERIES])


def _reader(element: Element, member: tuple[int, ...]) -> Any:
    return lambda slices: element[(*member, slices)]


def _coverage(source: Grid, target: Grid) -> float:
    """Return the share of the target's voxels whose centres lie in the source's field of view."""
    inside = sum(int(slab.inside.sum()) for slab in slabs(source, target))
    return inside / float(np.prod(target.shape, dtype=np.int64))


def _volumes(found: list[LabelResult], voxel: float) -> dict[str, list[float]]:
    """Return, of each label id, its volume in the common field of view before and after, in mm3, over all members."""
    totals: dict[str, list[float]] = {}
    for result in found:
        after = result.volumes()
        for number, wanted in result.wanted.items():
            entry = totals.setdefault(str(number), [0.0, 0.0])
            entry[0] += round(wanted * voxel, 3)
            entry[1] += round(after[number] * voxel, 3)
    return totals
