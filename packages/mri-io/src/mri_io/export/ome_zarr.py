"""OME-Zarr 0.5: an image at several resolutions, with its label maps, in zarr format 3.

https://ngff.openmicroscopy.org/0.5/
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.names import require_image, require_same_grid, series_of
from mri_io.export.png import label_colours
from mri_io.export.pyramid import circular_mean, halving_factors, local_majority, local_mean
from mri_io.store.element import Element

__all__ = ["OmeZarrExporter"]

VERSION = "0.5"
LEVELS = 3
WORKING_BYTES = 96
"""For each voxel of the finer level, while a coarser one is made of it."""
CHUNK = {"z": 16, "y": 256, "x": 256}
_Reduce = Callable[[np.ndarray, Sequence[int]], np.ndarray]


class OmeZarrExporter(ElementExporter):
    """A folder ``.ome.zarr`` with the resolutions 0, 1, 2, and label maps of ``labels`` under ``labels/<name>``.

    Axes are z, y, x in millimetres; frames are t; sets and echoes are c, one after the other. OME-Zarr 0.5 holds scale
    and translation, no rotation: coordinates are those of the image's own axes, with 0 at the centre of the first
    voxel. The affine to RAS+ is kept in the attribute ``mri``. Coarser levels are local means (of labels majorities).
    """

    name = "ome-zarr"
    summary = "OME-Zarr 0.5 of images, maps and labels at several resolutions, label maps by --label"
    gives = "a folder"
    options = frozenset({"labels", "levels"})
    parts = ("magnitude", "phase", "real", "imag")

    def names(self, item: ExportItem) -> list[str]:
        """Return the name of the folder."""
        require_image(item.element, self.name)
        for label_map in self._labels(item):
            if label_map.type != "seg":
                raise ConfigError(expected_got("--label", expected="a label map seg/<name>", got=label_map.path))
            require_same_grid(item.element, label_map)
        return [self.stem(item) + ".ome.zarr"]

    def memory(self, item: ExportItem) -> int:
        """Return what making a slab of a coarser level takes: its voxels in double precision, sorted into blocks."""
        *_, slices, rows, columns = item.element.shape
        return WORKING_BYTES * min(slices, 2 * CHUNK["z"]) * rows * columns

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the image, then its labels."""
        import zarr

        root = zarr.create_group(targets[0], zarr_format=3)
        self._write_image(root, item.element)
        names = {label_map.name: label_map for label_map in self._labels(item)}
        if names:
            group = root.create_group("labels", attributes={"ome": {"version": VERSION, "labels": list(names)}})
            for name, label_map in names.items():
                self._write_image(group.create_group(name), label_map, source={"image": "../../"})

    def _labels(self, item: ExportItem) -> list[Element]:
        return [item.volume[path] for path in self.chosen.labels]

    def _write_image(self, group: Any, element: Element, source: dict[str, str] | None = None) -> None:
        """Write the levels of one image, the coarser ones from the finer, and then its metadata."""
        axes, reduce, method = _axes(element), *self._reduction(element)
        scales = [_spacing(element)]
        array = self._write_finest(group, element, axes)
        for level in range(1, self.chosen.levels or LEVELS):
            factors = halving_factors(array.shape[-3:], scales[-1])
            if max(factors) == 1:
                break
            array = _write_coarser(group, str(level), array, factors, reduce)
            scales.append([space * factor for space, factor in zip(scales[-1], factors, strict=True)])
        content: dict[str, Any] = {"version": VERSION, "multiscales": [_multiscale(element, axes, scales, method)]}
        if element.type == "seg":
            content["image-label"] = {**_image_label(element), **({"source": source} if source else {})}
        group.attrs.update({"ome": content, "mri": self._own(element)})

    def _reduction(self, element: Element) -> tuple[_Reduce, str]:
        if element.type == "seg":
            return local_majority, "majority"
        return (circular_mean, "circular mean") if self.part_of(element) == "phase" else (local_mean, "mean")

    def _write_finest(self, group: Any, element: Element, axes: Sequence[Mapping[str, str]]) -> Any:
        dtype = self.converted(element, np.zeros(1, element.dtype)).dtype
        sizes = {"t": _length(element, "frame"), "c": _length(element, "set", "echo")}
        front = tuple(sizes[axis["name"]] for axis in axes[:-3])
        array = _create(group, "0", (*front, *element.shape[-3:]), dtype, [axis["name"] for axis in axes])
        for place, index in _members(element):
            for z in _slabs(array):
                array[(*place, z)] = self.converted(element, element[(*index, z)])
        return array

    def _own(self, element: Element) -> dict[str, Any]:
        """Return what OME-Zarr has no place for."""
        affine = element.affine
        return {
            "volume": element.volume_id,
            "element": element.path,
            "commit": element.commit,
            "part": self.part_of(element),
            "unit": element.attributes.get("unit"),
            "affine": None if affine is None else affine.tolist(),
            "affine_of": "voxel (x, y, z) of level 0 to RAS+ millimetres",
            "series": series_of(element),
        }


def _length(element: Element, *dims: str) -> int:
    return math.prod(size for name, size in series_of(element).items() if name in dims)


def _axes(element: Element) -> list[dict[str, str]]:
    series = series_of(element)
    unit = {} if element.affine is None else {"unit": "millimeter"}
    front = [{"name": "t", "type": "time"}] if "frame" in series else []
    front += [{"name": "c", "type": "channel"}] if series.keys() & {"set", "echo"} else []
    return [*front, *({"name": name, "type": "space", **unit} for name in "zyx")]


def _members(element: Element) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield the place (t, c), those of them that there are, of each member of a series, and its index."""
    series = series_of(element)
    for index in np.ndindex(*series.values()):
        number = dict(zip(series, index, strict=True))
        channel = number.get("set", 0) * series.get("echo", 1) + number.get("echo", 0)
        time = (number["frame"],) if "frame" in number else ()
        yield (*time, *((channel,) if number.keys() & {"set", "echo"} else ())), index


def _create(group: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], dims: Sequence[str]) -> Any:
    from zarr.codecs import BloscCodec

    chunks = tuple(min(size, CHUNK.get(dim, 1)) for size, dim in zip(shape, dims, strict=True))
    codec = BloscCodec(cname="zstd", shuffle="bitshuffle")
    return group.create_array(
        name, shape=shape, dtype=dtype, chunks=chunks, compressors=[codec], dimension_names=list(dims)
    )


def _slabs(array: Any, factor: int = 1) -> Iterator[slice]:
    """Yield slices along z of whole chunks; times `factor`, of the array that they are made from."""
    step, length = array.chunks[-3], array.shape[-3]
    for start in range(0, length, step):
        yield slice(start * factor, (start + step) * factor)


def _write_coarser(group: Any, name: str, finer: Any, factors: Sequence[int], reduce: _Reduce) -> Any:
    spatial = tuple(-(-size // factor) for size, factor in zip(finer.shape[-3:], factors, strict=True))
    shape = (*finer.shape[:-3], *spatial)
    array = _create(group, name, shape, finer.dtype, finer.metadata.dimension_names)
    for place in np.ndindex(*shape[:-3]):
        for own, of_finer in zip(_slabs(array), _slabs(array, factors[0]), strict=True):
            array[(*place, own)] = reduce(finer[(*place, of_finer)], factors)
    return array


def _spacing(element: Element) -> list[float]:
    """Return the voxel sizes along z, y, x in mm, 1 where they are unknown."""
    affine = element.affine
    return [1.0] * 3 if affine is None else [float(size) for size in np.linalg.norm(affine[:3, :3], axis=0)[::-1]]


def _multiscale(
    element: Element, axes: Sequence[Mapping[str, str]], scales: Sequence[Sequence[float]], method: str
) -> dict[str, Any]:
    front = len(axes) - 3
    datasets = []
    for level, scale in enumerate(scales):
        # The first block's centre lies between the first and the last voxel that it covers.
        shift = [(coarse - fine) / 2 for coarse, fine in zip(scale, scales[0], strict=True)]
        transformations = [
            {"type": "scale", "scale": [1.0] * front + list(scale)},
            {"type": "translation", "translation": [0.0] * front + shift},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return {"name": element.name, "axes": list(axes), "datasets": datasets, "type": method}


def _image_label(element: Element) -> dict[str, Any]:
    labels = sorted(element.labels.items())
    return {
        "colors": [{"label-value": number, "rgba": [*label_colours(number), 255]} for number, _ in labels],
        "properties": [{"label-value": number, **entry} for number, entry in labels],
    }
