"""Philips PAR/REC through nibabel: slices, echoes, dynamics, cardiac phases, and images of several types."""

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.parrec import PARRECHeader

from mri_io.errors import FormatError
from mri_io.formats.base import Identity, SourceItem, identify, personal_texts
from mri_io.formats.images.files import ImageFile, Reader, check_claimed_size, image_stem, reading, voxel_size
from mri_io.formats.images.single import ImageFormat
from mri_io.formats.names import contrast_of
from mri_io.formats.vocabulary import known_sequence

__all__ = ["ParRecFormat"]

_KIND = "PAR/REC image"
SCALING = "dv"
"""Displayed values, pixel x rescale slope + rescale intercept, as the scanner's console and its DICOM files give."""

_TYPES = {0: "", 1: "-real", 2: "-imaginary", 3: "-phase"}
"""What follows the contrast in an element's name, by ``image_type_mr``; others are numbered."""
_SERIES = {
    "set": ("label type", "diffusion b value number", "gradient orientation number", "scanning sequence"),
    "frame": ("dynamic scan number", "cardiac phase number"),
    "echo": ("echo number",),
}


class ParRecFormat(ImageFormat):
    """Each type of image, magnitude, phase, real or imaginary, is an element of one volume.

    Values are those that the scanner displays; the elements say so. Echoes become ``echo``, dynamics and cardiac phases
    ``frame``, diffusion weightings and labels ``set``; where these do not combine freely, ``set`` counts them all.
    """

    name = "parrec"
    summary = "Philips PAR/REC: slices, echoes, dynamics; magnitude, phase, real, imaginary"

    def sniff(self, path: Path) -> bool:
        """Whether it is a PAR header, or a REC file beside one."""
        header = self.header_of(path)
        if header.suffix.lower() != ".par" or not header.is_file():
            return False
        try:
            with header.open("rb") as file:
                return b"DATA DESCRIPTION FILE" in file.read(4096) or header != path
        except OSError:
            return True

    def header_of(self, path: Path) -> Path:
        """Return ``.PAR`` for ``.REC``, in the case of the ending."""
        return path.with_suffix(".PAR" if path.suffix.isupper() else ".par") if _is_rec(path) else path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return the two files of a pair."""
        return tuple(file for file in (path, _rec(path)) if file.is_file())

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the patient's name in the header, or after the file's."""
        stem = image_stem(item.path.name)
        header = _header(item.path, check=False)
        patient, exam = _patient(header), str(header.general_info.get("exam_name", "")).strip()
        return identify(item.path, stem, contrast_of(stem), patient, aliases=(patient,), whole=(exam,))

    def open(self, path: Path) -> ImageFile:
        """Return the first type of image, magnitude where there is one."""
        return next(iter(self.images(path).values()))

    def images(self, path: Path) -> Mapping[str, ImageFile]:
        """Return the images of each type.

        Raises
        ------
        FormatError
            When the header is damaged, or the REC file is missing or has another size.
        """
        header, rec = _header(path), _rec(path)
        if not rec.is_file():
            raise FormatError(f"{rec}: expected beside {path.name}, found no file. PAR and REC are one image.")
        with reading(path, _KIND):
            x, y, z, *volumes = (int(n) for n in header.get_data_shape())
            stack = (x, y, *header.get_rec_shape()[2:])
            check_claimed_size(rec, stack, header.get_data_dtype().itemsize)
            labels, count = header.get_volume_labels(), math.prod(volumes)
            types = np.asarray(labels.get("image_type_mr", [header.image_defs["image_type_mr"][0]] * count))
            common: dict[str, Any] = {
                "path": path,
                "kind": _KIND,
                "dtype": np.dtype(np.float64),
                "affine": np.asarray(header.get_affine(), np.float64),
                "voxel_mm": voxel_size(np.asarray(header.get_affine())),
                "facts": _facts(header),
                "attributes": {"scaling": f"{SCALING}: displayed values, pixel x rescale slope + rescale intercept"},
            }
            found = {}
            for kind in sorted(set(types.tolist())):
                series, order = _series(labels, np.flatnonzero(types == kind))
                data = _Data(rec, header, order, z)
                shape = (*order.shape, z, y, x)
                name = _TYPES.get(int(kind), f"-type{int(kind)}")
                found[name] = ImageFile(shape=shape, series=series, reader=data.reader, **common)
        return found


def _is_rec(path: Path) -> bool:
    return path.suffix.lower() == ".rec"


def _rec(path: Path) -> Path:
    return path.with_suffix(".REC" if path.suffix.isupper() else ".rec")


def _header(path: Path, *, check: bool = True) -> Any:
    """Read a PAR header; FormatError when it is damaged, or says that slices are missing."""
    with reading(path, "PAR header"), path.open(encoding="latin-1") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what nibabel warns of is an error, or stated in the result
        return PARRECHeader.from_fileobj(file, permit_truncated=not check, strict_sort=True)


def _patient(header: Any) -> str:
    return str(header.general_info.get("patient_name", "")).strip()


def _series(labels: Mapping[str, Any], members: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the dimensions of the series, and the volumes of one type of image, `members`, on this grid."""
    columns = {}
    for name, keys in _SERIES.items():
        rows = [np.asarray(labels[key])[members] for key in keys if key in labels]
        if rows:
            _, columns[name] = np.unique(np.stack(rows, axis=1), axis=0, return_inverse=True)
    columns = {name: column.reshape(-1) for name, column in columns.items() if column.max() > 0}
    if len(members) == 1:
        return (), members.reshape(())
    shape = tuple(int(column.max()) + 1 for column in columns.values())
    grid = np.full(shape, -1)
    if columns:
        grid[tuple(columns.values())] = members
    if columns and grid.size == len(members) and (grid >= 0).all():
        return tuple(columns), grid
    return ("set",), members


def _facts(header: Any) -> dict[str, Any]:
    """Return what the header tells of the acquisition, in SI units."""
    general, images = header.general_info, header.image_defs

    def values(column: str, scale: float) -> tuple[float, ...] | None:
        found = sorted({float(value) for value in images[column]} - {0.0}) if column in images.dtype.names else []
        return tuple(value * scale for value in found) or None

    tr = tuple(float(ms) / 1000 for ms in np.atleast_1d(general.get("repetition_time", ())) if float(ms) > 0)
    facts = {
        "vendor": "Philips",
        "sequence": known_sequence(str(general.get("tech", "")), personal_texts([_patient(header)])),
        "te_s": values("echo_time", 1e-3),
        "ti_s": values("Inversion delay", 1e-3),
        "flip_angle_rad": values("image_flip_angle", math.pi / 180),
        "tr_s": tr or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


class _Data:
    """The slices of some volumes of a REC file, of which `order` gives the numbers."""

    def __init__(self, path: Path, header: Any, order: np.ndarray, slices: int) -> None:
        self._path, self._header, self._order, self._slices = path, header, order, slices

    def reader(self) -> AbstractContextManager[Reader]:
        """Return a function that reads slices and scales them."""
        header, count = self._header, self._slices
        places = np.asarray(header.get_sorted_slice_indices())
        slopes, intercepts = (
            np.broadcast_to(values, header.get_data_shape())[0, 0].reshape(-1, order="F")
            for values in header.get_data_scaling(SCALING)
        )
        data = np.memmap(self._path, header.get_data_dtype(), "r", shape=tuple(header.get_rec_shape()), order="F")

        def read(index: Sequence[int], start: int, stop: int) -> np.ndarray:
            first = int(self._order[tuple(index)]) * count
            wanted = np.arange(first + start, first + stop)
            pixels = data[..., places[wanted]].T.astype(np.float64)
            return pixels * slopes[wanted, None, None] + intercepts[wanted, None, None]

        return nullcontext(read)
