"""ISMRMRD HDF5: acquisitions with encoding counters, sorted into k-space."""

from mri_io.formats.ismrmrd.reader import IsmrmrdFormat

__all__ = ["IsmrmrdFormat"]
