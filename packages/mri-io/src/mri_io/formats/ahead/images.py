"""Images of AHEAD as NIfTI, magnitude and phase of each echo, put together to complex reconstructions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import FormatError, expected_got
from mri_io.formats.base import RawElement, RawVolume
from mri_io.formats.images.files import ImageFile
from mri_io.formats.images.sidecars import with_sidecar
from mri_io.formats.nifti import NiftiFormat

__all__ = ["echo_images"]

TOLERANCE = 1e-3
FILLED = 0.9
"""Least part of a turn in which the phases of an image lie: those of its background take all values."""
_UNITS = {"milliradians": 2000 * np.pi, "4096ths of a turn": 4096.0, "8192nds of a turn": 8192.0}


def echo_images(magnitudes: Sequence[Path], phases: Sequence[Path]) -> RawVolume:
    """Return a volume with ``recon/echoes`` (echo, slice, y, x) of images in the order of their echoes.

    Parameters of the acquisition are those of the images' sidecars. Phases are taken as radians,
    milliradians, or in 4096 or 8192 steps, whichever their range shows.

    Raises
    ------
    FormatError
        When the images are not on one grid, or the range of a phase is that of no unit.
    """
    pairs = [[with_sidecar(NiftiFormat().open(path)) for path in pair] for pair in zip(magnitudes, phases, strict=True)]
    first = pairs[0][0]
    for image in (image for pair in pairs for image in pair):
        same = (
            image.affine is not None and first.affine is not None and np.allclose(image.affine, first.affine, atol=1e-3)
        )
        if image.shape != first.shape or len(image.shape) != 3 or not same:
            expected = f"the three dimensions {first.shape} and the affine of {first.path.name}"
            raise FormatError(expected_got("image", expected=expected, got=f"{image.shape}", where=image.path))

    def blocks() -> Iterator[np.ndarray]:
        for magnitude, phase in pairs:
            scale = np.float32(2 * np.pi / _period(phase))
            for size, angle in zip(magnitude.blocks(), phase.blocks(), strict=True):
                yield (size * np.exp(1j * scale * angle.astype(np.float32))).astype(np.complex64)

    shape = (len(pairs), *first.shape)
    dims = ("echo", "slice", "y", "x")
    element = RawElement("recon/echoes", shape, np.dtype(np.complex64), blocks, dims=dims, affine=first.affine)
    return RawVolume((element,), replace(first, facts=_facts(pairs)).header())


def _facts(pairs: Sequence[Sequence[ImageFile]]) -> dict[str, Any]:
    """Return what sidecars state: the echo times where every echo has one, else what all that state it agree in."""
    echoes: list[Mapping[str, Any]] = [{**phase.facts, **magnitude.facts} for magnitude, phase in pairs]
    times: list[tuple[float, ...]] = [echo.get("te_s") or () for echo in echoes]
    stated = {name: [echo[name] for echo in echoes if name in echo] for echo in echoes for name in echo}
    facts = {name: values[0] for name, values in stated.items() if name != "te_s" and len(set(values)) == 1}
    return facts | ({"te_s": tuple(time[0] for time in times)} if all(len(time) == 1 for time in times) else {})


def _period(phase: ImageFile) -> float:
    """Return how much of a phase image's unit is one turn."""
    low, high = np.inf, -np.inf
    for block in phase.blocks():
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    length = high - low
    if length <= 2 * np.pi * (1 + TOLERANCE):
        return 2 * np.pi
    for period in _UNITS.values():
        if FILLED * period <= length <= period * (1 + TOLERANCE):
            return period
    expected = f"a range of one turn in radians, {', '.join(_UNITS)}"
    raise FormatError(expected_got("phase", expected=expected, got=f"{low:g} .. {high:g}", where=phase.path))
