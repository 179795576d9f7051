"""Siemens raw data (twix): the measurement's buffers, its protocol, and its readouts sorted into k-space."""

from mri_io.formats.twix.reader import TwixFormat

__all__ = ["TwixFormat"]
