"""Errors raised by this package; all are those of `mri_io.errors`."""

from mri_io.errors import ConfigError, ElementNotFoundError, FormatError, MriError, ShapeError, expected_got

__all__ = ["ConfigError", "ElementNotFoundError", "FormatError", "MriError", "ShapeError", "expected_got"]
