"""Folders of image and mask PNGs under the same names: ``Images/...`` and ``Labels/...``."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mri_io.errors import FormatError, ShapeError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify

__all__ = ["PngPairsFormat"]

MOST_LABELS = 32


class PngPairsFormat(Format):
    """Frames of a patient are stacked along ``slice`` in the order of their names.

    The patient is the name up to ``-IM`` (or the name's part before the last ``-`` or ``_`` number). Masks may hold 0
    and 255 or label ids; a binary mask becomes label 1 of ``seg/mask``.
    """

    name = "png-pairs"
    summary = "folder with Images/ and Labels/ of PNGs under the same names"

    def sniff(self, path: Path) -> bool:
        """Whether the folder has ``Images`` and ``Labels`` with PNGs in them."""
        images, labels = path / "Images", path / "Labels"
        return images.is_dir() and labels.is_dir() and any(images.rglob("*.png"))

    def find(self, path: Path) -> list[SourceItem]:
        """Return one volume per patient and folder."""
        groups: dict[tuple[str, str], list[Path]] = {}
        for file in sorted((path / "Images").rglob("*.png")):
            folder = file.parent.relative_to(path / "Images").as_posix()
            groups.setdefault((folder, _patient(file.name)), []).append(file)
        items = []
        for (folder, patient), images in groups.items():
            masks = [path / "Labels" / image.relative_to(path / "Images") for image in images]
            files = (*images, *(mask for mask in masks if mask.is_file()))
            label = f"{patient} ({len(images)} frames)"
            options = {"images": tuple(images), "masks": tuple(masks), "patient": patient}
            items.append(SourceItem(self.name, path / "Images" / folder / patient, files, label, options))
        return items

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the patient's part of the files' names."""
        patient = item.options["patient"]
        return identify(item.path, patient, "png", patient)

    def read(self, item: SourceItem) -> RawVolume:
        """Read the frames of one patient."""
        images, masks = item.options["images"], item.options["masks"]
        for image, mask in zip(images, masks, strict=True):
            if not mask.is_file():
                raise FormatError(f"{mask}: expected the mask of {image}, found no file.")
        frames = np.stack(_same_size(images, "L"))
        labels = np.stack(_same_size(masks, "P"))
        if labels.shape != frames.shape:
            raise ShapeError(expected_got("mask size", expected=frames.shape, got=labels.shape, where=masks[0].parent))
        values = np.unique(labels).tolist()
        if set(values) <= {0, 255}:
            labels, values = labels // 255, [0, 1]
        ids = [int(value) for value in values if value]
        if len(ids) > MOST_LABELS or max(ids) > 255:
            raise FormatError(
                expected_got(
                    "mask",
                    expected=f"0 and 255, or up to {MOST_LABELS} label ids below 256",
                    got=f"{len(ids)} values up to {max(ids)}",
                    where=masks[0].parent,
                )
            )
        name, declared = next(iter(item.options.get("labels", {"mask": {}}).items()))
        names = dict(declared) or ({1: "structure"} if ids == [1] else {n: f"label {n}" for n in ids})
        dims = ("slice", "y", "x")
        elements = (
            RawElement.of("image/cine", frames.astype(np.int16 if frames.max() < 2**15 else np.float32), dims=dims),
            RawElement.of(f"seg/{name}", labels.astype(np.uint8), dims=dims, labels=names),
        )
        frame_names = [image.name.removeprefix(item.options["patient"]).lstrip("-_") for image in images]
        return RawVolume(elements=elements, attributes={"frames": frame_names})


def _patient(name: str) -> str:
    prefix = name.split("-IM")[0] if "-IM" in name else re.sub(r"[-_]?\d+(\.\w+)*$", "", name)
    return prefix or Path(name).stem


def _same_size(files: tuple[Path, ...], mode: str) -> list[np.ndarray]:
    """Return files as arrays; colours become `mode` L, grey, or are kept as the indices of a palette, P."""
    arrays = []
    for file in files:
        try:
            with Image.open(file) as image:
                plain = image.mode in ("L", "I;16", "I", "1", mode)
                arrays.append(np.asarray(image if plain else image.convert("L")) * (255 if image.mode == "1" else 1))
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise FormatError(f"{file}: expected a readable PNG, got: {error}. The file is damaged.") from error
        if arrays[-1].shape != arrays[0].shape:
            raise ShapeError(
                expected_got(
                    "frame size",
                    expected=f"{arrays[0].shape} as {files[0].name}",
                    got=arrays[-1].shape,
                    where=file,
                    fix="Frames of one patient must have one size.",
                )
            )
    return arrays
