"""What must hold between an element about to be committed and those that are there (rule R6)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import SchemaError, ShapeError, expected_got
from mri_io.schema.elements import DATA, SERIES

if TYPE_CHECKING:
    from mri_io.store.element import Element

__all__ = [
    "UndeclaredLabelError",
    "check_affine",
    "check_anonymous",
    "check_attributes",
    "check_labels_declared",
    "check_siblings",
    "normalise_labels",
]

AFFINE_TOLERANCE_MM = 1e-3
_NOT_LETTERS = re.compile(r"[^a-z]")
_IDENTIFYING = re.compile(
    r".*(patient|physician|institution|birth|accession|insurance|medicalrecord|socialsecurity|serialnumber"
    r"|stationname|phonenumber|telephone).*"
    r"|(operator|referring|performing|requesting|station(?!ar)).*"
    r"|address|email|mrn|ssn"
)
"""Letters of names, lower case, under which DICOM and others keep who was examined, where and by whom (PS3.15 E)."""


class UndeclaredLabelError(SchemaError):
    """A label map holds an id that its attributes do not declare."""


def check_affine(affine: Any, where: str) -> list[list[float]]:
    """Return an affine as nested lists; raise SchemaError when it is no voxel-to-world map."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise SchemaError(expected_got("affine shape", expected=(4, 4), got=matrix.shape, where=where))
    usable = np.isfinite(matrix).all() and np.array_equal(matrix[3], [0, 0, 0, 1])
    if not usable or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise SchemaError(
            expected_got(
                "affine",
                expected="finite, invertible, last row 0 0 0 1",
                got=matrix.tolist(),
                where=where,
                fix="It maps voxel indices (x, y, slice) to RAS+ millimetres.",
            )
        )
    return [[float(value) for value in row] for row in matrix]


def normalise_labels(labels: Mapping[int, Any] | None, where: str) -> dict[str, dict[str, Any]]:
    """Return declared labels in their stored form ``{"1": {"name": ..., "code": ...}}``."""
    if labels is None:
        raise SchemaError(
            expected_got("labels", expected="a mapping of every label id to its name", got="none declared", where=where)
        )
    stored: dict[str, dict[str, Any]] = {}
    for key, value in labels.items():
        number = int(key)
        if number <= 0:
            raise SchemaError(
                expected_got("label id", expected="a positive integer", got=key, where=where, fix="0 is background.")
            )
        entry = {"name": value} if isinstance(value, str) else dict(value)
        if not entry.get("name"):
            raise SchemaError(expected_got(f"label {number}", expected="a name", got=value, where=where))
        stored[str(number)] = entry
    check_anonymous(stored, where)
    return stored


def check_labels_declared(block: np.ndarray, labels: Mapping[str, Any], where: str) -> None:
    """Raise SchemaError when a label map holds an id that is not declared."""
    found = np.flatnonzero(np.bincount(block.reshape(-1), minlength=1))  # ids are 8 or 16 bits: faster than unique
    undeclared = sorted({int(number) for number in found} - {0} - {int(key) for key in labels})
    if undeclared:
        raise UndeclaredLabelError(
            expected_got(
                "label ids",
                expected=", ".join(["0 (background)", *labels]),
                got=", ".join(str(number) for number in undeclared[:10]),
                where=where,
                fix="Declare every id in labels=.",
            )
        )


def check_attributes(attributes: Mapping[str, Any] | None, reserved: Iterable[str], where: str) -> dict[str, Any]:
    """Return further attributes; SchemaError when a key is reserved or names a patient identifier (rule R2)."""
    found = dict(attributes or {})
    taken = sorted(found.keys() & set(reserved))
    if taken:
        raise SchemaError(f"{where}: the attributes {', '.join(taken)} are set by the store. Choose other names.")
    check_anonymous(found, where)
    return found


def check_anonymous(content: Any, where: str) -> None:
    """Raise SchemaError when a key at any depth of a mapping or list names what identifies a patient (rule R2)."""
    personal = sorted(set(_identifying(content, "")))
    if personal:
        raise SchemaError(f"{where}: the attributes {', '.join(personal)} identify a patient. Leave them out.")


def _identifying(content: Any, path: str) -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if _IDENTIFYING.fullmatch(_NOT_LETTERS.sub("", str(key).lower())):
                yield f"{path}{key}"
            else:
                yield from _identifying(value, f"{path}{key}.")
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _identifying(value, path)


def check_siblings(
    path: str,
    sizes: Mapping[str, int],
    affine: Any,
    siblings: Mapping[str, "Element"],
    where: str,
    *,
    recon_matrix: Sequence[int] | None = None,
) -> None:
    """Raise ShapeError when an element does not fit the others of its volume.

    Parameters
    ----------
    path
        Path of the element in question.
    sizes
        Its dimensions by name, in order.
    affine
        Its affine or None.
    siblings
        The other elements.
    where
        What messages call the element.
    recon_matrix
        (x, y, z) of the volume's header: with the matrix of k-space, the grids that labels may have before the volume
        holds an image.
    """
    kind = path.partition("/")[0]
    kspace = siblings.get("kspace")
    if kspace is not None:
        _check_against_kspace(kind, sizes, dict(zip(kspace.dims, kspace.shape, strict=True)), where)
    if kind == "kspace":
        for other in siblings.values():
            if DATA in other.arrays:
                others = dict(zip(other.dims, other.shape, strict=True))
                _check_against_kspace(other.type, others, sizes, f"{where}, beside {other.path}")
    if kind == "seg":
        images = [element for element in siblings.values() if element.type in ("image", "recon", "qmap")]
        if images:
            _check_grid(tuple(sizes.values()), affine, images, where)
        elif kspace is not None:
            _check_grid_of_kspace(sizes, kspace, recon_matrix, where)


_SHARED_WITH_KSPACE: dict[str, dict[str, str]] = {
    "mask": {name: name for name in (*SERIES, "slice", "kz", "ky", "kx")},
    "trajectory": {name: name for name in (*SERIES, "slice", "kz", "shot", "sample")},
    "sens": {"slice": "slice", "z": "kz", "coil": "coil", "y": "ky", "x": "kx"},
    "noise": {"coil": "coil"},
    "recon": {"slice": "slice"},
}
"""Dimensions of each type that have the length of a dimension of k-space."""


def _check_against_kspace(kind: str, sizes: Mapping[str, int], kspace: Mapping[str, int], where: str) -> None:
    for name, of_kspace in _SHARED_WITH_KSPACE.get(kind, {}).items():
        if name in sizes and of_kspace in kspace and sizes[name] != kspace[of_kspace]:
            raise ShapeError(
                expected_got(
                    f"{kind} length along {name}",
                    expected=f"{kspace[of_kspace]}, the length of {of_kspace} in kspace",
                    got=sizes[name],
                    where=where,
                )
            )


def _check_grid_of_kspace(
    sizes: Mapping[str, int], kspace: "Element", recon_matrix: Sequence[int] | None, where: str
) -> None:
    of_kspace = dict(zip(kspace.dims, kspace.shape, strict=True))
    grids = {(of_kspace["ky"], of_kspace["kx"])} if "ky" in of_kspace else set()
    if recon_matrix is not None:
        grids.add((recon_matrix[1], recon_matrix[0]))
    slices = of_kspace.get("slice", 1) * of_kspace.get("kz", 1)
    found = tuple(sizes.values())[-3:]
    if grids and (found[0] != slices or found[1:] not in grids):
        wanted = " or ".join(f"({slices}, {y}, {x})" for y, x in sorted(grids))
        raise ShapeError(
            expected_got(
                "label grid",
                expected=f"{wanted}, as the images of this k-space have",
                got=found,
                where=where,
                fix="Resample the labels to the image's grid.",
            )
        )


def _check_grid(shape: tuple[int, ...], affine: Any, images: Sequence["Element"], where: str) -> None:
    # Labels of a series have its length, or are those of all its members.
    fitting = [
        e for e in images if e.shape[-3:] == shape[-3:] and (3 in (len(shape), len(e.shape)) or e.shape == shape)
    ]
    if not fitting:
        grids = ", ".join(f"{element.path} {element.shape}" for element in images)
        raise ShapeError(
            expected_got(
                "label grid",
                expected=f"that of an image of the volume ({grids})",
                got=shape,
                where=where,
                fix="Resample the labels to the image's grid.",
            )
        )
    known = [(element.path, known) for element in fitting if (known := element.affine) is not None]
    if affine is None or not known:
        return
    matrix = np.asarray(affine, dtype=np.float64)
    if any(np.allclose(other, matrix, rtol=0, atol=AFFINE_TOLERANCE_MM) for _, other in known):
        return
    path, other = known[0]
    raise ShapeError(
        expected_got(
            "label affine",
            expected=f"{np.round(other, 4).tolist()} as of {path}",
            got=np.round(matrix, 4).tolist(),
            where=where,
            fix="Resample the labels to the image's grid, or correct the header.",
        )
    )
