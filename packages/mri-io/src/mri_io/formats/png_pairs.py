"""Folders of image and mask PNGs under the same names: ``Images/...`` and ``Labels/...``."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mri_io.errors import FormatError, ShapeError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.images.files import BLOCK_BYTES, WORKING_BLOCKS
from mri_io.formats.images.pair_folders import FolderPair, folder_pairs
from mri_io.formats.names import stored_name

__all__ = ["PngPairsFormat"]

MOST_LABELS = 32
MOST_PIXELS = 2**26
"""Of one frame; a header that claims more is taken as damaged."""
_BYTES_PER_PIXEL = 16
"""Of a frame that is decoded and converted."""
_DIMS = ("slice", "y", "x")
_GREY = ("L", "I;16", "I;16B", "I", "1")
_IM = "-IM"
"""What stands between patient and number in names of frames that were made from DICOM."""
_ONLY = "mask"
"""Element of the masks where one folder holds them all."""
_LOSSY = (".jpg", ".jpeg")
_END, _TAIL_BYTES = b"IEND\xaeB`\x82", 4096
"""Last chunk of a PNG, and where it is looked for: some programs leave bytes behind it."""
_FRAME = re.compile(r"(?:(?:IM[-_])?\d{1,6}(?:[-_]\d{1,6})?(?:\.dcm)?(?:\.png)?)?", re.IGNORECASE)
"""What may be left of a frame's name after its patient's part."""


class PngPairsFormat(Format):
    """Frames of a patient are stacked along ``slice`` in the order of the numbers in their names.

    The patient is the name up to ``-IM``, or the name's part before the last ``-`` or ``_`` number. Where that does not
    tell patients apart it is the folder, ``P1/frame_001.png``; see `_patient`. Masks may hold 0 and 255 or label ids; a
    binary mask becomes label 1 of ``seg/mask``.
    """

    name = "png-pairs"
    brings_labels = True
    summary = "folders Images/ and Labels/ (masks/, ...) of PNGs, 8 or 16 bits, under the same names"

    def sniff(self, path: Path) -> bool:
        """Whether the folder has a folder of images and one of label maps, with PNGs, or JPEGs to refuse, in it."""
        return path.is_dir() and any(_files(pair.images, (".png", *_LOSSY)) for pair in _pairs(path))

    def find(self, path: Path) -> list[SourceItem]:
        """Return one volume per patient and folder; JPEGs are one item with a `problem`."""
        pairs = list(_pairs(path))
        several = len({pair.part for pair in pairs} - {None}) > 1
        return [item for pair in pairs for item in self._find(pair, pair.part if several else None)]

    def _find(self, pair: FolderPair, part: str | None) -> Iterator[SourceItem]:
        lossy = [file for folder in (pair.images, *pair.maps.values()) for file in _files(folder, _LOSSY)]
        if lossy:
            fix = "JPEG changes grey values and label ids; make PNGs from the originals."
            problem = expected_got("images", expected="PNG", got=f"JPEG ({lossy[0].name})", where=pair.images, fix=fix)
            yield SourceItem(self.name, lossy[0], (), pair.images.name, problem=problem)
        groups: dict[tuple[str, str], list[Path]] = {}
        for file in _files(pair.images, (".png",)):
            folder = file.parent.relative_to(pair.images).as_posix()
            groups.setdefault((folder, _stem(file, pair.images)), []).append(file)
        for (folder, stem), images in groups.items():
            masks = _masks(pair, images)
            files = (*images, *(mask for of_folder in masks.values() for mask in of_folder if mask.is_file()))
            patient = _patient(folder, stem, images[0], groups)
            label = f"{stem or Path(folder).name} ({len(images)} frames)"
            options = {"images": tuple(images), "masks": masks, "patient": patient, "stem": stem, "part": part}
            yield SourceItem(self.name, pair.images / folder / stem, files, label, options)

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the patient's part of the files' names, or their folder."""
        patient = item.options["patient"]
        return identify(item.path, patient, "png", patient)

    def split_of(self, item: SourceItem) -> Mapping[str, str] | None:
        """Return the part that the names of the folders state, ``imagesTr``, where there are several."""
        part = item.options.get("part")
        return {self.name: part} if part else None

    def memory(self, item: SourceItem) -> int:
        """Return the bytes of a few blocks of frames, and of one that is decoded."""
        try:
            with Image.open(item.options["images"][0]) as image:
                pixels = image.width * image.height
        except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError):
            return super().memory(item)
        return WORKING_BLOCKS * max(BLOCK_BYTES, 8 * pixels) + _BYTES_PER_PIXEL * pixels

    def read(self, item: SourceItem) -> RawVolume:
        """Read the frames of one patient: all of them once for what they hold, and again as blocks are asked for."""
        images, masks = item.options["images"], item.options["masks"]
        given = item.options.get("labels", {})
        if _ONLY in masks:
            masks = {next(iter(given), _ONLY): masks[_ONLY]}
        shape, highest = (), 0
        for frame in _decoded(images):
            shape, highest = (len(images), *frame.shape), max(highest, int(frame.max()))
        frame_dtype = np.dtype(np.int16 if highest < 2**15 else np.float32)
        elements = (
            RawElement("image/cine", shape, frame_dtype, _Blocks(images, shape, frame_dtype), dims=_DIMS),
            *(self._labels(name, images, files, shape, given.get(name, {})) for name, files in masks.items()),
        )
        rests = [image.name.removeprefix(item.options["stem"]).lstrip("-_") for image in images]
        names = [rest if _FRAME.fullmatch(rest) else stored_name(rest) for rest in rests]
        return RawVolume(elements=elements, attributes={"frames": names})

    def _labels(
        self,
        name: str,
        images: Sequence[Path],
        masks: Sequence[Path],
        shape: tuple[int, ...],
        declared: Mapping[int, str],
    ) -> RawElement:
        """Read which values the masks of all frames have."""
        for image, mask in zip(images, masks, strict=True):
            if not mask.is_file():
                raise FormatError(f"{mask}: expected the mask of {image}, found no file.")
        values: set[int] = set()
        found = shape
        for frame in _decoded(masks, is_mask=True):
            values.update(np.unique(frame).tolist())
            found = (len(masks), *frame.shape)
        if found != shape:
            raise ShapeError(expected_got("mask size", expected=shape, got=found, where=masks[0].parent))
        divisor = 255 if values <= {0, 255} else 1
        ids = sorted(value for value in values if value) if divisor == 1 else [1]
        if len(ids) > MOST_LABELS:
            raise FormatError(
                expected_got(
                    "mask",
                    expected=f"0 and 255, or up to {MOST_LABELS} label ids",
                    got=f"{len(ids)} values up to {max(ids)}",
                    where=masks[0].parent,
                )
            )
        names = dict(declared) or ({1: "structure"} if ids == [1] else {n: f"label {n}" for n in ids})
        dtype = np.dtype(np.uint8 if max(ids) < 256 else np.uint16)
        blocks = _Blocks(masks, shape, dtype, is_mask=True, divisor=divisor)
        return RawElement(f"seg/{name}", shape, dtype, blocks, dims=_DIMS, labels=names)


@dataclass(frozen=True)
class _Blocks:
    """Frames, some at once, as they are stored: their values divided by a number."""

    files: Sequence[Path] = field(repr=False)  # they may name the patient
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_mask: bool = False
    divisor: int = 1

    def __call__(self) -> Iterator[np.ndarray]:
        step = max(1, BLOCK_BYTES // (self.shape[1] * self.shape[2] * 8))
        frames = _decoded(self.files, is_mask=self.is_mask)
        for start in range(0, len(self.files), step):
            block = np.empty((min(step, len(self.files) - start), *self.shape[1:]), self.dtype)
            for number, frame in enumerate(islice(frames, len(block))):
                block[number] = frame // self.divisor
            yield block


def _pairs(path: Path) -> Iterator[FolderPair]:
    return (pair for pair in folder_pairs(path) if pair.maps)


def _masks(pair: FolderPair, images: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Return the masks of frames by folder; of several folders those that hold any of them."""
    folders = pair.maps if len(pair.maps) > 1 else {_ONLY: next(iter(pair.maps.values()))}
    found = {
        name: tuple(folder / image.relative_to(pair.images) for image in images) for name, folder in folders.items()
    }
    return {name: masks for name, masks in found.items() if any(mask.is_file() for mask in masks)} or found


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings and path.name[0] != ".")
    return sorted((path for path in found if path.is_file()), key=lambda path: _counted(path.relative_to(folder)))


def _counted(path: Path) -> tuple[list[str | int], Path]:
    """Return a key that sorts by the numbers in names: ``frame_2`` before ``frame_10``."""
    words = re.split(r"([0-9]+)", path.as_posix())
    return [int(word) if number % 2 else word for number, word in enumerate(words)], path


def _stem(file: Path, root: Path) -> str:
    """Return what a name says beside the frame's number; of a number in the folder itself all, it is an image alone."""
    stem = file.name.split(_IM)[0] if _IM in file.name else re.sub(r"[-_]?\d+(\.\w+)*$", "", file.name)
    return stem or (file.stem if file.parent == root else "")


def _patient(folder: str, stem: str, image: Path, groups: Collection[tuple[str, str]]) -> str:
    """Return the patient of a group of frames: what their names say, or the folder where they say nothing of it.

    That is so where all frames of a folder are named alike, and that either without a number, ``frame``, or as those
    of other folders. Where they have several names, these may be patients.
    """
    beside = [other for other, _ in groups if other == folder]
    if folder == "." or _IM in image.name or len(beside) > 1:
        return stem
    shared = [other for _, other in groups if other == stem]
    return folder if len(shared) > 1 or not any(character.isdigit() for character in stem) else stem


def _decoded(files: Sequence[Path], *, is_mask: bool = False) -> Iterator[np.ndarray]:
    """Yield files as grey levels, of masks with a palette as its indices; all must have the size of the first."""
    shape = None
    for file in files:
        try:
            with Image.open(file, formats=["PNG"]) as image:
                if not _has_end(file):
                    raise ValueError("no end")
                if image.width * image.height > MOST_PIXELS:
                    raise FormatError(
                        expected_got("size", expected=f"up to {MOST_PIXELS} pixels", got=image.size, where=file)
                    )
                frame = _mask(image, file) if is_mask else _grey(image)
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{file}: expected a readable PNG, got: {error}. The file is damaged.") from error
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ShapeError(
                expected_got(
                    "frame size",
                    expected=f"{shape} as {files[0].name}",
                    got=frame.shape,
                    where=file,
                    fix="Frames of one patient must have one size.",
                )
            )
        yield frame


def _has_end(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        return _END in stream.read()


def _grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image if image.mode in _GREY else image.convert("L")) * (255 if image.mode == "1" else 1)


def _mask(image: Image.Image, file: Path) -> np.ndarray:
    """Return label ids; FormatError when they are shown by colours, which say nothing of ids."""
    if image.mode == "P":
        return np.asarray(image)
    if image.mode not in (*_GREY, "LA"):
        red, green, blue = (np.asarray(image.convert("RGB"))[..., channel] for channel in range(3))
        if not (np.array_equal(red, green) and np.array_equal(red, blue)):
            fix = "Write label ids as grey levels, or as indices of a palette."
            raise FormatError(expected_got("mask", expected="grey levels", got="colours", where=file, fix=fix))
    return _grey(image)
