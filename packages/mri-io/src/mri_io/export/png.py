"""PNG: one file per slice, windowed over the volume; label maps keep their ids, with a palette."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from mri_io.errors import ConfigError
from mri_io.export.names import exported_stem, require_image
from mri_io.store.element import Element

__all__ = ["PALETTE", "write_pngs"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; 0 is black.
PALETTE = ((0, 0, 0), (0, 158, 115), (230, 159, 0), (86, 180, 233), (213, 94, 0), (204, 121, 167), (240, 228, 66))
LOW, HIGH = 0.5, 99.5


def write_pngs(element: Element, folder: Path, part: Callable[[np.ndarray], np.ndarray]) -> list[Path]:
    """Write 8-bit PNGs; images are windowed from the 0.5th to the 99.5th percentile, noted in the files' text."""
    require_image(element, "png")
    array = part(element.numpy())
    if array.dtype.kind == "c":
        raise ConfigError(f"{element.folder}: PNG cannot hold complex values; choose --part magnitude or phase.")
    stem, files = exported_stem(element), []
    note = PngImagePlugin.PngInfo()
    labelled = element.type == "seg"
    if labelled and array.max() > 255:
        raise ConfigError(f"{element.folder}: label ids above 255 do not fit a PNG with a palette; export nifti.")
    if not labelled:
        low, high = np.percentile(array, (LOW, HIGH))
        note.add_text("window", f"{low:g} .. {high:g} ({LOW} and {HIGH} percentile of the volume)")
        array = 255 * np.clip((array - low) / max(high - low, 1e-12), 0, 1)
    for number, plane in enumerate(np.rint(array).astype(np.uint8)):
        image = Image.fromarray(plane)
        if labelled:
            image = image.convert("P")
            image.putdata(plane.ravel().tolist())
            colours = [PALETTE[0]] + [PALETTE[1 + i % (len(PALETTE) - 1)] for i in range(255)]
            image.putpalette([value for colour in colours for value in colour])
        files.append(folder / f"{stem}_{number:03d}.png")
        image.save(files[-1], pnginfo=note)
    return files
