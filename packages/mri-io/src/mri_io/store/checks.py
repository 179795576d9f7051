"""What must hold between an element about to be committed and those that are there (rule R6)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mri_io.errors import SchemaError, ShapeError, expected_got
from mri_io.schema.elements import ElementType

if TYPE_CHECKING:
    from mri_io.store.element import Element

__all__ = ["check_affine", "check_labels_declared", "check_siblings", "normalise_labels"]

AFFINE_TOLERANCE_MM = 1e-3


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
            expected_got(
                "labels", expected="a mapping of every label id to its name", got="none declared", where=where
            )
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
    return stored


def check_labels_declared(block: np.ndarray, labels: Mapping[str, Any], where: str) -> None:
    """Raise SchemaError when a label map holds an id that is not declared."""
    undeclared = sorted(set(np.unique(block).tolist()) - {0} - {int(key) for key in labels})
    if undeclared:
        raise SchemaError(
            expected_got(
                "label ids",
                expected="0 and " + ", ".join(labels),
                got=", ".join(str(number) for number in undeclared[:10]),
                where=where,
                fix="Declare every id in labels=.",
            )
        )


def check_siblings(
    kind: ElementType,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    affine: Any,
    siblings: Mapping[str, "Element"],
    where: str,
) -> None:
    """Raise ShapeError when an element does not fit the others of its volume."""
    sizes = dict(zip(dims, shape, strict=True))
    kspace = siblings.get("kspace")
    if kspace is not None and kind.name != "kspace":
        expected = dict(zip(kspace.dims, kspace.shape, strict=True))
        if kind.name == "sens":
            expected |= {"y": expected["ky"], "x": expected["kx"]}
        elif kind.name != "mask":
            expected = {"slice": expected["slice"]}
        for name in sizes.keys() & expected.keys():
            if sizes[name] != expected[name]:
                what = "mask length along" if kind.name == "mask" else "length of"
                raise ShapeError(
                    expected_got(
                        f"{what} {name}",
                        expected=f"{expected[name]} as in kspace",
                        got=sizes[name],
                        where=where,
                    )
                )
    if kind.name == "seg":
        _check_grid(shape, affine, siblings, where)


def _check_grid(shape: tuple[int, ...], affine: Any, siblings: Mapping[str, "Element"], where: str) -> None:
    images = [element for element in siblings.values() if element.type in ("image", "recon")]
    fitting = [element for element in images if element.shape == shape]
    if images and not fitting:
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
