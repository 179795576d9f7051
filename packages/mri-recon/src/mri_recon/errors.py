"""Errors of this package: those of `mri_io.errors` that it raises."""

from mri_io.errors import ConfigError, ElementNotFoundError, FormatError, MriError, ShapeError

__all__ = ["ConfigError", "ElementNotFoundError", "FormatError", "MriError", "ShapeError"]
