"""The reader of AHEAD (Alkemade et al. 2020, doi:10.1016/j.neuroimage.2020.117200; raw data: doi:10.34894/IHZGQM)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.ahead.coils import coil_maps, is_coil_maps
from mri_io.formats.ahead.images import echo_images
from mri_io.formats.ahead.names import ECHOES, Part, image_part, raw_part
from mri_io.formats.base import Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.ismrmrd.reader import IsmrmrdFormat, data_sets
from mri_io.schema.attributes import Header

__all__ = ["AheadFormat"]

_FIX = "Give the folder with all echoes, or read one file as any ISMRMRD file: --format ismrmrd."


class AheadFormat(IsmrmrdFormat):
    """The files of one inversion joined: k-space (echo, kz, coil, ky, kx), or images (echo, slice, y, x).

    Raw data are one ISMRMRD file per echo, ``mp2rageme_001_inv2_te1.h5`` to ``te4``, and ``mp2rageme_001_inv1.h5`` with
    the one echo of the first inversion; ``coilsens_001.h5`` are the subject's coil maps. Images are NIfTI, magnitude
    and phase of all four echoes in one folder, with ``mp2rageme`` or ``ahead`` in their names.
    """

    name = "ahead"
    summary = "AHEAD 7 T multi-echo: mp2rageme_NNN_inv2_te1..4.h5, coilsens_NNN.h5; NIfTI magnitude and phase"

    def sniff(self, path: Path) -> bool:
        """Whether a file is named as one of the set and holds what its name says."""
        return _part(path) is not None

    def find(self, path: Path) -> list[SourceItem]:
        """Return one item per file, for `gather` to join."""
        groups = data_sets(path)
        options = {"group": groups[0]} if groups else {}
        return [SourceItem(self.name, path, (path,), path.name, options)]

    def gather(self, items: Sequence[SourceItem]) -> list[SourceItem]:
        """Join the echoes of a scan, and the coil maps of its subject."""
        scans: dict[tuple[Path, str], list[tuple[Part, SourceItem]]] = {}
        coils: dict[tuple[Path, str], SourceItem] = {}
        for item in items:
            part = raw_part(item.path) or image_part(item.path)  # by names: what they hold was looked at before
            assert part is not None
            if part.kind == "coils":
                coils[item.path.parent, part.scan] = item
            else:
                scans.setdefault((item.path.parent, part.scan), []).append((part, item))
        joined, used = [], set()
        for (folder, scan), members in scans.items():
            members.sort(key=lambda member: (member[0].kind, member[0].echo))
            first = members[0][1]
            maps = coils.get((folder, scan.partition("_")[0]))
            files = [item.path for _, item in members]
            if maps is not None and members[0][0].kind == "kspace":
                used.add(maps.path)
                files.append(maps.path)
            joined.append(replace(first, files=tuple(files)))
        for item in coils.values():
            if item.path not in used:
                problem = f"{item.path}: coil maps without the k-space they belong to, mp2rageme_NNN_inv2_te1.h5 ..."
                joined.append(replace(item, problem=problem))
        return joined

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the subject's number, or the name of the images."""
        part = raw_part(item.path) or image_part(item.path)
        if part is None or part.kind != "kspace":
            return identify(item.path, part.scan if part else item.path.stem, "mp2rageme")
        found = super().identify(item)
        return replace(found, subject=f"sub-ahead{part.subject}", acquisition=f"mp2rageme{part.scan.partition('_')[2]}")

    def read(self, item: SourceItem) -> RawVolume:
        """Read the echoes of a scan; k-space and images are read when they are asked for."""
        members = [(part, path) for path in item.files if (part := raw_part(path) or image_part(path)) is not None]
        images = {kind: [path for part, path in members if part.kind == kind] for kind in ("magnitude", "phase")}
        if any(images.values()):
            return echo_images(images["magnitude"], images["phase"])
        raw = [(part.echo, path) for part, path in members if part.kind == "kspace"]
        echoes = [echo for echo, _ in raw]
        if echoes not in ([0], list(range(1, ECHOES + 1))):
            got = ", ".join(path.name for _, path in raw)
            expected = f"te1 to te{ECHOES} of one inversion"
            raise FormatError(expected_got("echoes", expected=expected, got=got, where=item.path, fix=_FIX))
        volumes = [super(AheadFormat, self).read(self._single(item, path)) for _, path in raw]
        volume = volumes[0] if len(volumes) == 1 else _joined(volumes, [path for _, path in raw])
        kspace = volume.elements[0]
        sizes = dict(zip(kspace.dims or (), kspace.shape, strict=True))
        if not {"kz", "coil", "ky", "kx"} <= set(sizes):
            expected, got = "3-D k-space (kz, coil, ky, kx) in each file", ", ".join(kspace.dims or ())
            raise FormatError(expected_got("k-space", expected=expected, got=got, where=item.path, fix=_FIX))
        maps = [coil_maps(path, sizes) for part, path in members if part.kind == "coils"]
        return replace(volume, elements=(*volume.elements, *maps))

    def memory(self, item: SourceItem) -> int:
        """Return the bytes of the planes of one file, the heads of all, and some blocks of images."""
        raw = [path for path in item.files if (part := raw_part(path)) is not None and part.kind == "kspace"]
        return max((super(AheadFormat, self).memory(self._single(item, path)) for path in raw), default=2**28) + 2**29

    def _single(self, item: SourceItem, path: Path) -> SourceItem:
        """Return an item for one of the joined files."""
        groups = data_sets(path)
        if not groups:
            raise FormatError(expected_got("content", expected="an ISMRMRD data set", got="none", where=path))
        return replace(item, path=path, files=(path,), options={"group": groups[0]})


def _part(path: Path) -> Part | None:
    """Return what a file holds of the set, None of other files."""
    raw = raw_part(path)
    if raw is not None:
        return raw if (is_coil_maps(path) if raw.kind == "coils" else len(data_sets(path)) == 1) else None
    image = image_part(path)
    if image is None or not path.is_file():
        return None
    # All four echoes, each with magnitude and phase; other images of the set are read one by one.
    beside = [p for file in path.parent.iterdir() if (p := image_part(file)) is not None and p.scan == image.scan]
    wanted = {(kind, echo) for kind in ("magnitude", "phase") for echo in range(1, ECHOES + 1)}
    return image if len(beside) == len(wanted) and {(p.kind, p.echo) for p in beside} == wanted else None


def _joined(volumes: Sequence[RawVolume], paths: Sequence[Path]) -> RawVolume:
    """Join the volumes of single echoes; noise and geometry are those of the first."""
    first, spaces = volumes[0], [volume.elements[0] for volume in volumes]
    for space, path in zip(spaces, paths, strict=True):
        if space.dims != spaces[0].dims or space.shape != spaces[0].shape or "echo" in (space.dims or ()):
            expected = f"one echo of the k-space ({', '.join(spaces[0].dims or ())}) {spaces[0].shape}"
            got = f"({', '.join(space.dims or ())}) {space.shape}"
            raise FormatError(expected_got("echo", expected=expected, got=got, where=path, fix=_FIX))

    def blocks() -> Iterator[np.ndarray]:
        for space in spaces:
            yield from space.blocks()

    kspace = replace(
        spaces[0], shape=(len(spaces), *spaces[0].shape), dims=("echo", *(spaces[0].dims or ())), blocks=blocks
    )
    others = [element for element in first.elements[1:] if element.path != "mask/acquired"]
    header = first.header.model_copy(update={"te_s": _echo_times([volume.header for volume in volumes])})
    return RawVolume((kspace, *_joined_masks(volumes, spaces[0]), *others), header, first.attributes)


def _echo_times(headers: Sequence[Header]) -> tuple[float, ...] | None:
    """Return the times of the echoes: each file states its own, or every file those of all; else they are unknown."""
    stated = [header.te_s or () for header in headers]
    if all(len(times) == 1 for times in stated):
        return tuple(times[0] for times in stated)
    return stated[0] if len(set(stated)) == 1 and len(stated[0]) == len(headers) else None


def _joined_masks(volumes: Sequence[RawVolume], kspace: RawElement) -> list[RawElement]:
    """Return the mask of all echoes, none when all were acquired."""
    sizes = dict(zip(kspace.dims or (), kspace.shape, strict=True))
    dims = ("kz", "ky", "kx")
    full = tuple(sizes.get(name, 1) for name in dims)
    patterns: list[Any] = []
    for volume in volumes:
        mask = next((element for element in volume.elements if element.path == "mask/acquired"), None)
        if mask is None:
            patterns.append(np.ones(full, np.uint8))
            continue
        shape = [size if name in (mask.dims or ()) else 1 for name, size in zip(dims, full, strict=True)]
        patterns.append(np.broadcast_to(next(iter(mask.blocks())).reshape(shape), full))
    if all(pattern.all() for pattern in patterns):
        return []
    same = all(np.array_equal(pattern, patterns[0]) for pattern in patterns)
    array = np.array(patterns[0]) if same else np.stack(patterns)
    found = {"acceleration": array.size / float(max(1, array.sum(dtype=np.int64)))}
    return [RawElement.of("mask/acquired", array, dims=dims if same else ("echo", *dims), attributes=found)]
