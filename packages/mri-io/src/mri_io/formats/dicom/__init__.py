"""DICOM through pydicom: files of a source joined into volumes by what their headers say of each image plane."""

from mri_io.formats.dicom.reader import DicomFormat

__all__ = ["DicomFormat"]
