"""Names of exported files."""

from pathlib import Path

from mri_io.errors import ConfigError, expected_got
from mri_io.store.element import Element

__all__ = ["exported_stem", "require_image"]


def exported_stem(element: Element) -> str:
    """Return ``<volume>_<element path with - for />``."""
    return f"{element.volume_id}_{element.path.replace('/', '-')}"


def require_image(element: Element, format: str) -> None:
    """Raise ConfigError unless the element is a stack of slices."""
    if element.dims not in (("slice", "y", "x"), ("z", "y", "x")):
        raise ConfigError(
            expected_got(
                f"element for {format}",
                expected="an image, reconstruction or label map (slice, y, x)",
                got=f"{element.path} {element.dims}",
                where=Path(element.folder),
            )
        )
