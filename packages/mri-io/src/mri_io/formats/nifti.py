"""NIfTI images through nibabel; the affine is kept as it is."""

import gzip
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from mri_io.errors import FormatError, NonFiniteError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.names import bids_suffix, is_bids
from mri_io.schema.attributes import Header

__all__ = ["NiftiFormat", "contrast_of", "read_nifti", "stem_of"]


def stem_of(path: Path) -> str:
    """Return a file's name without ``.nii`` or ``.nii.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


_CONTRASTS = re.compile(
    r"(?:^|[_\W])(t1w?|t2w?|t2star|pdw?|flair|dwi|adc|b0|bold|cine|swi|t1ce|t1c|t1gd|t1n|t2f|mprage|angio|hbv)(?=[_\W]|$)"
)


def contrast_of(stem: str) -> str:
    """Return the contrast that a file's name states, else ``image``.

    Of names wholly in the BIDS form it is the suffix; in others a known word is looked for, since the rest may be a
    person's name.

    Examples
    --------
    >>> contrast_of("sub-01_ses-2_T1w"), contrast_of("DOE_JOHN_t2"), contrast_of("DOE_JOHN")
    ('t1w', 't2', 'image')
    """
    if is_bids(stem):
        return (bids_suffix(stem) or "image").lower()
    found = _CONTRASTS.search(stem.lower())
    return found[1] if found else "image"


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the array as stored, (z, y, x), and the affine of (x, y, z).

    Raises
    ------
    FormatError
        When the file is no NIfTI, truncated, or not three-dimensional.
    """
    try:
        image: Any = nibabel.load(path)
        shape = tuple(n for axis, n in enumerate(image.shape) if axis < 3 or n > 1)
        if len(shape) != 3:
            raise FormatError(expected_got("dimensions", expected="(x, y, z)", got=image.shape, where=path))
        array = np.asarray(image.dataobj).reshape(shape)
    except FormatError:
        raise
    except Exception as error:  # nibabel, zlib and numpy each have their own
        raise FormatError(
            f"{path}: expected a readable NIfTI image, got: {error}. The file is truncated or of another format."
        ) from error
    if array.dtype.kind not in "iufb":
        raise FormatError(expected_got("dtype", expected="real numbers", got=array.dtype, where=path))
    return np.ascontiguousarray(array.T), np.asarray(image.affine, np.float64)


class NiftiFormat(Format):
    """A three-dimensional image; integers that fit become int16, all else float32.

    The file's slices are the third axis; the stored array is the file's transposed.
    """

    name = "nifti"
    summary = "NIfTI (.nii, .nii.gz): 3-D images"

    def sniff(self, path: Path) -> bool:
        """Whether the file has the magic of NIfTI-1 or -2, compressed or not."""
        if not path.is_file():
            return False
        try:
            with path.open("rb") as file:
                start = file.read(2)
            if start == b"\x1f\x8b":
                if not path.name.endswith(".nii.gz"):
                    return False
                with gzip.open(path) as packed:
                    head = packed.read(352)
            else:
                with path.open("rb") as file:
                    head = file.read(352)
        except (OSError, EOFError, gzip.BadGzipFile):
            return path.name.endswith((".nii", ".nii.gz"))
        magic = head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")
        return magic or path.name.endswith((".nii", ".nii.gz"))

    def find(self, path: Path) -> list[SourceItem]:
        """Return the one image of a file."""
        return [SourceItem(self.name, path, (path,), path.name)]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the file's name; free text of the header is not looked at."""
        return identify(item.path, stem_of(item.path), contrast_of(stem_of(item.path)))

    def read(self, item: SourceItem) -> RawVolume:
        """Read one image."""
        array, affine = read_nifti(item.path)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise NonFiniteError(
                expected_got("values", expected="finite", got=f"{count} NaN or infinite", where=item.path)
            )
        fits = array.dtype.kind in "iub" and array.min() >= -(2**15) and array.max() < 2**15
        array = array.astype(np.int16 if fits else np.float32)
        x, y, z = array.shape[::-1]
        step = np.linalg.norm(affine[:3, :3], axis=0) / 1000
        header = Header(recon_matrix=(x, y, z), recon_fov_m=(step[0] * x, step[1] * y, step[2] * z))
        contrast = contrast_of(stem_of(item.path))
        element = RawElement.of(f"image/{contrast}", array, dims=("slice", "y", "x"), affine=affine)
        return RawVolume(elements=(element,), header=header)
