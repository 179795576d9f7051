"""PNG: one file per slice, windowed over the volume; label maps keep their ids, with a palette."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from mri_io.errors import ConfigError
from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.names import require_image

__all__ = ["PALETTE", "PngExporter"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; 0 is black.
PALETTE = ((0, 0, 0), (0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66))
LOW, HIGH = 0.5, 99.5


class PngExporter(ElementExporter):
    """8-bit PNGs; images are windowed from the 0.5th to the 99.5th percentile, noted in the files' text.

    Voxels without a value, as maps of failed fits have them, are black.
    """

    name = "png"
    summary = "PNG of each slice of images, maps and labels, 8 bits"
    parts = ("magnitude", "phase", "real", "imag")

    def names(self, item: ExportItem) -> list[str]:
        """Return the names of the slices."""
        element = item.element
        require_image(element, self.name, series=False)
        if element.type == "seg" and max(element.labels, default=0) > 255:
            raise ConfigError(f"{element.folder}: label ids above 255 do not fit a PNG with a palette; export nifti.")
        return [f"{self.stem(item)}_{number:03d}.png" for number in range(element.shape[0])]

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the slices."""
        array = self.converted(item.element, item.element.numpy())
        note = PngImagePlugin.PngInfo()
        labelled = item.element.type == "seg"
        if not labelled:
            known = array[np.isfinite(array)]
            low, high = np.percentile(known, (LOW, HIGH)) if known.size else (0.0, 0.0)
            note.add_text("window", f"{low:g} .. {high:g} ({LOW} and {HIGH} percentile of the volume)")
            array = 255 * np.clip((np.nan_to_num(array, nan=low) - low) / ((high - low) or 1.0), 0, 1)
        for file, plane in zip(targets, np.rint(array).astype(np.uint8), strict=True):
            image = Image.fromarray(plane)
            if labelled:
                image = Image.frombytes("P", image.size, plane.tobytes())
                colours = [PALETTE[0]] + [PALETTE[1 + i % (len(PALETTE) - 1)] for i in range(255)]
                image.putpalette([value for colour in colours for value in colour])
            image.save(file, pnginfo=note)
