"""NIfTI: the array transposed back to (x, y, slice), the affine exactly as stored."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np

from mri_io.export.names import require_image
from mri_io.store.element import Element

__all__ = ["endings", "write"]


def endings(element: Element) -> list[str]:
    """Return the end of the one file's name."""
    require_image(element, "nifti")
    return [".nii.gz"]


def write(element: Element, files: Sequence[Path], part: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write one ``.nii.gz``; without an affine the voxels are taken as 1 mm and the header says 'unknown'."""
    array = part(element.numpy()).T
    known = element.affine is not None
    image = nibabel.Nifti1Image(array, element.affine if known else np.eye(4))
    image.set_sform(image.affine, code=1 if known else 0)
    image.set_qform(image.affine, code=1 if known else 0)
    if known:
        # A quaternion cannot hold a sheared affine; the sform can, and readers prefer it.
        image.set_sform(element.affine, code=1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, files[0])
