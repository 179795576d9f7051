"""AHEAD, the Amsterdam ultra-high field adult lifespan database: multi-echo scans at 7 T."""

from mri_io.formats.ahead.reader import AheadFormat

__all__ = ["AheadFormat"]
