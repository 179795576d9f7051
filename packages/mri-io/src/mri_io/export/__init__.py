"""Write elements as files for other tools."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mri_io.errors import ConfigError, ElementExistsError, expected_got
from mri_io.export import bart, nifti, png
from mri_io.export.names import exported_stem
from mri_io.store.durable import storage_errors
from mri_io.store.element import Element

__all__ = ["EXPORTERS", "PARTS", "Exporter", "export", "exported_files"]

PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "magnitude": np.abs,
    "phase": np.angle,
    "real": np.real,
    "imag": np.imag,
    "complex": np.asarray,
}
"""What is written of complex images; ``phase`` in radians."""


@dataclass(frozen=True)
class Exporter:
    """A file format: how the files of an element end, raising ConfigError where it cannot hold it, and their writer."""

    endings: Callable[[Element], list[str]]
    write: Callable[[Element, Sequence[Path], Callable[[np.ndarray], np.ndarray]], None]
    holds_complex: bool = True
    complex_only: bool = False


EXPORTERS: dict[str, Exporter] = {
    "nifti": Exporter(nifti.endings, nifti.write),
    "png": Exporter(png.endings, png.write, holds_complex=False),
    "bart": Exporter(bart.endings, bart.write, complex_only=True),
}


def exported_files(
    element: Element, out: str | Path, format: str, *, part: str | None = None, replace: bool = False
) -> list[Path]:
    """Return the files that `export` would write, and raise what it would raise before it writes them."""
    chosen = "magnitude" if part is None else part
    for what, value, known in (("format", format, EXPORTERS), ("part", chosen, PARTS)):
        if value not in known:
            raise ConfigError(expected_got(what, expected=tuple(known), got=repr(value)))
    if EXPORTERS[format].complex_only and part not in (None, "complex"):
        fix = "Leave --part out, or choose another format."
        raise ConfigError(
            expected_got("part", expected=f"complex, all that {format} writes", got=part, where=element.folder, fix=fix)
        )
    if element.dtype.kind != "c" and part in ("phase", "imag"):
        raise ConfigError(f"{element.folder}: part: the element is real and has no {part}. Leave --part out.")
    exporter, folder = EXPORTERS[format], Path(out)
    if part == "complex" and element.dtype.kind == "c" and not exporter.holds_complex:
        raise ConfigError(f"{element.folder}: {format} cannot hold complex values. Choose --part magnitude or phase.")
    stem = exported_stem(element)
    if not exporter.complex_only and element.dtype.kind == "c" and chosen != "magnitude":
        stem += f"_{chosen}"
    files = [folder / f"{stem}{ending}" for ending in exporter.endings(element)]
    present = [file for file in files if file.exists()]
    if present and not replace:
        raise ElementExistsError(f"{present[0]}: exists already. To overwrite it: --replace")
    return files


def export(
    element: Element, out: str | Path, format: str, *, part: str | None = None, replace: bool = False
) -> list[Path]:
    """Write an element in another format.

    Parameters
    ----------
    element
        The element.
    out
        Folder for the files, which are named after volume and element, and after `part` where it is not the magnitude.
        They appear whole or not at all.
    format
        A key of `EXPORTERS`.
    part
        For complex images: a key of `PARTS`, by default the magnitude. ``bart`` writes complex data and takes no other.
    replace
        Overwrite files that exist.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    ConfigError
        For an unknown format or part, or an element that the format cannot hold.
    ElementExistsError
        When a file exists and `replace` is false.
    StoreError
        When the files cannot be written.
    """
    files = exported_files(element, out, format, part=part, replace=replace)
    convert = PARTS[part or "magnitude"] if element.dtype.kind == "c" else np.asarray
    token = uuid.uuid4().hex
    temporary = [file.with_name(f".{token}.{file.name}") for file in files]
    with storage_errors(Path(out)):
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            EXPORTERS[format].write(element, temporary, convert)
            for file, target in zip(temporary, files, strict=True):
                file.replace(target)
        finally:
            for file in temporary:
                file.unlink(missing_ok=True)
    return files
