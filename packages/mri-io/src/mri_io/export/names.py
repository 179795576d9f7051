"""Which elements are images, and lie on one grid."""

import numpy as np

from mri_io.errors import ConfigError, expected_got
from mri_io.schema.elements import SERIES
from mri_io.store.checks import AFFINE_TOLERANCE_MM
from mri_io.store.element import Element

__all__ = ["require_image", "require_same_grid", "series_of"]


def series_of(element: Element) -> dict[str, int]:
    """Return the dimensions of a series that stand in front of an element's others, with their lengths."""
    return {name: size for name, size in zip(element.dims, element.shape, strict=True) if name in SERIES}


def require_image(element: Element, format: str, *, series: bool = True) -> None:
    """Raise ConfigError unless the element is a stack of slices, or a series of them where the format holds it."""
    rest = element.dims[len(series_of(element)) :] if series else element.dims
    if rest not in (("slice", "y", "x"), ("z", "y", "x")):
        raise ConfigError(
            expected_got(
                f"element for {format}",
                expected="an image, reconstruction or label map (slice, y, x)"
                + (" or a series of it" if series else ""),
                got=f"{element.path} {element.dims}",
                where=element.folder,
            )
        )


def require_same_grid(first: Element, other: Element) -> None:
    """Raise ConfigError unless an element lies on the grid of another of its volume, by shape and affine."""
    known = first.affine is not None and other.affine is not None
    same = not known or np.allclose(first.affine, other.affine, rtol=0, atol=AFFINE_TOLERANCE_MM)  # type: ignore[arg-type]
    shape, others = first.shape[-3:], other.shape[-3:]
    if shape != others or not same:
        raise ConfigError(
            expected_got(
                "grid",
                expected=f"{shape} of {first.path}",
                got=f"{others} of {other.path}" + ("" if shape != others else " with another affine"),
                where=first.folder.parents[first.path.count("/")],
                fix=f"Bring it to that grid: mri-cli resample COHORT {other.path} --to {first.path}",
            )
        )
