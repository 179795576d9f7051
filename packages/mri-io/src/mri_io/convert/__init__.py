"""Conversion: which file becomes which volume of a cohort, under which number, with which label maps; and doing it."""

from mri_io.convert.running import convert

__all__ = ["convert"]
