"""NIfTI: the array transposed back to (x, y, slice), the affine exactly as stored."""

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from mri_io.export.base import ElementExporter, ExportItem
from mri_io.export.names import require_image

__all__ = ["NiftiExporter"]


class NiftiExporter(ElementExporter):
    """One ``.nii.gz``; without an affine the voxels are taken as 1 mm and the header says 'unknown'."""

    name = "nifti"
    summary = "NIfTI .nii.gz of images, maps and labels, with their affine"

    def names(self, item: ExportItem) -> list[str]:
        """Return the name of the file."""
        require_image(item.element, self.name, series=False)
        return [self.stem(item) + ".nii.gz"]

    def write(self, item: ExportItem, targets: Sequence[Path]) -> None:
        """Write the file."""
        element = item.element
        array = self.converted(element, element.numpy()).T
        known = element.affine is not None
        image = nibabel.Nifti1Image(array, element.affine if known else np.eye(4))
        image.set_sform(image.affine, code=1 if known else 0)
        image.set_qform(image.affine, code=1 if known else 0)
        if known:
            # A quaternion cannot hold a sheared affine; the sform can, and readers prefer it.
            image.set_sform(element.affine, code=1)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, targets[0])
