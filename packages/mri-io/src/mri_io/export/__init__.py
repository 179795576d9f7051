"""Write elements as files for other tools."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.export.bart import write_cfl
from mri_io.export.nifti import write_nifti
from mri_io.export.png import write_pngs
from mri_io.store.element import Element

__all__ = ["EXPORTERS", "PARTS", "export"]

PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "magnitude": np.abs,
    "phase": np.angle,
    "real": np.real,
    "imag": np.imag,
    "complex": np.asarray,
}

EXPORTERS: dict[str, Callable[[Element, Path, Callable[[np.ndarray], np.ndarray]], list[Path]]] = {
    "nifti": write_nifti,
    "png": write_pngs,
    "bart": write_cfl,
}


def export(element: Element, out: str | Path, format: str, *, part: str = "magnitude") -> list[Path]:
    """Write an element in another format.

    Parameters
    ----------
    element
        The element.
    out
        Folder for the files, which are named after volume and element.
    format
        A key of `EXPORTERS`.
    part
        For complex images: a key of `PARTS`. ``bart`` always writes complex data.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    ConfigError
        For an unknown format or part, or an element that the format cannot hold.
    """
    for what, value, known in (("format", format, EXPORTERS), ("part", part, PARTS)):
        if value not in known:
            raise ConfigError(expected_got(what, expected=tuple(known), got=repr(value)))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    convert = PARTS[part] if element.dtype.kind == "c" else np.asarray
    return EXPORTERS[format](element, folder, convert)
