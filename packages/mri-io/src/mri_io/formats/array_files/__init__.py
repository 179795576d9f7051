"""Bare arrays, NumPy and MATLAB files, whose axes the user names."""

from mri_io.formats.array_files.reader import ArrayFilesFormat

__all__ = ["ArrayFilesFormat"]
