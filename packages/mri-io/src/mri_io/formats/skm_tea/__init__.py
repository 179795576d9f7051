"""SKM-TEA, the Stanford knee data set with two echoes: k-space, maps, targets, label maps and splits."""

from mri_io.formats.skm_tea.reader import SkmTeaFormat

__all__ = ["SkmTeaFormat"]
