"""Which elements are images."""

from mri_io.errors import ConfigError, expected_got
from mri_io.schema.elements import SERIES
from mri_io.store.element import Element

__all__ = ["require_image", "series_of"]


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
