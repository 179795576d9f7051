"""Analyze 7.5 images through nibabel: pairs of ``.hdr`` and ``.img`` without an orientation."""

from dataclasses import replace
from pathlib import Path

from mri_io.formats.images.files import ImageFile
from mri_io.formats.images.single import ImageFormat
from mri_io.formats.nifti import is_nifti_header, open_pair

__all__ = ["AnalyzeFormat"]

HEADER_BYTES = 348


class AnalyzeFormat(ImageFormat):
    """Images and time series.

    The format does not state how the patient lies. The affine is nibabel's: x to the left of the patient as the
    format's makers had it, the origin in the centre or where SPM put it; the element says that it is assumed.
    """

    name = "analyze"
    summary = "Analyze 7.5 (.hdr with .img), of assumed orientation"

    def sniff(self, path: Path) -> bool:
        """Whether the header has the size that Analyze states first, in either byte order, and no magic of NIfTI."""
        header = self.header_of(path)
        if header.suffix != ".hdr" or not header.is_file():
            return False
        try:
            with header.open("rb") as file:
                head = file.read(352)
        except OSError:
            return False
        size = HEADER_BYTES
        return head[:4] in (size.to_bytes(4, "little"), size.to_bytes(4, "big")) and not is_nifti_header(head)

    def header_of(self, path: Path) -> Path:
        """Return ``.hdr`` for ``.img``."""
        return path.with_suffix(".hdr") if path.suffix == ".img" else path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return the two files of a pair, and the matrix of SPM."""
        return tuple(file for file in (path, path.with_suffix(".img"), path.with_suffix(".mat")) if file.is_file())

    def open(self, path: Path) -> ImageFile:
        """Read the header; raise FormatError when it is damaged, or the image is missing or truncated."""
        image = open_pair(path, "Analyze image")
        return replace(image, attributes={**image.attributes, "orientation": "assumed: Analyze 7.5 states none"})
