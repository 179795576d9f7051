"""PNG: one file per slice, windowed over the volume; label maps keep their ids, with a palette."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from mri_io.errors import ConfigError
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.names import require_image, series_of
from mri_io.store.element import Element

__all__ = ["PALETTE", "PngExporter", "label_colours"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; 0 is black.
PALETTE = ((0, 0, 0), (0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66))
LOW, HIGH = 0.5, 99.5
SAMPLES = 2**24
"""So many values, evenly spread, make the window of larger elements."""


def label_colours(number: int) -> tuple[int, int, int]:
    """Return the colour (red, green, blue) of a label id, 0 to 255 each; they repeat after six."""
    return PALETTE[0] if number == 0 else PALETTE[1 + (number - 1) % (len(PALETTE) - 1)]


class PngExporter(ElementExporter):
    """8-bit PNGs; images are windowed from the 0.5th to the 99.5th percentile, noted in the files' text.

    Members of a series are numbered from 0 as slices are, ``_frame-003_012.png``, and have one window. Voxels without
    a value, as maps of failed fits have them, are black.
    """

    name = "png"
    summary = "PNG of each slice of images, maps and labels, 8 bits"
    parts = ("magnitude", "phase", "real", "imag")

    def names(self, item: ExportItem) -> list[str]:
        """Return the names of the slices."""
        element = item.element
        require_image(element, self.name)
        if element.type == "seg" and max(element.labels, default=0) > 255:
            raise ConfigError(f"{element.folder}: label ids above 255 do not fit a PNG with a palette; export nifti.")
        series, stem = series_of(element), self.stem(item)
        members = [
            "".join(f"_{name}-{number:03d}" for name, number in zip(series, position, strict=True))
            for position in np.ndindex(*series.values())
        ]
        return [f"{stem}{member}_{number:03d}.png" for member in members for number in range(element.shape[-3])]

    def memory(self, item: ExportItem) -> int:
        """Return what the samples for the window take, thrice, and a block."""
        samples = 0 if item.element.type == "seg" else min(math.prod(item.element.shape), 2 * SAMPLES)
        return 3 * samples * item.element.dtype.itemsize + super().memory(item)

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the slices."""
        element, left = item.element, iter(targets)
        window = None if element.type == "seg" else self._window(element)
        for position in np.ndindex(*series_of(element).values()):
            for block in self.blocks(element, position):
                for plane in block:
                    _write_plane(plane, window, next(left))

    def _window(self, element: Element) -> tuple[float, float]:
        step = 1 + int(np.prod(element.shape, dtype=np.int64)) // SAMPLES
        samples = [
            block.ravel()[::step].copy()  # a view would keep the block
            for position in np.ndindex(*series_of(element).values())
            for block in self.blocks(element, position)
        ]
        known = np.concatenate([values[np.isfinite(values)] for values in samples])
        low, high = np.percentile(known, (LOW, HIGH)) if known.size else (0.0, 0.0)
        return float(low), float(high)


def _write_plane(plane: np.ndarray, window: tuple[float, float] | None, file: Path) -> None:
    if window is None:
        image = Image.frombytes("P", plane.shape[::-1], plane.astype(np.uint8).tobytes())
        image.putpalette([value for number in range(256) for value in label_colours(number)])
        image.save(file)
        return
    low, high = window
    scaled = np.clip((np.nan_to_num(plane, nan=low) - low) / ((high - low) or 1.0), 0, 1)
    note = PngImagePlugin.PngInfo()
    note.add_text("window", f"{low:g} .. {high:g} ({LOW} and {HIGH} percentile of the volume)")
    Image.fromarray(np.rint(255 * scaled).astype(np.uint8)).save(file, pnginfo=note)
