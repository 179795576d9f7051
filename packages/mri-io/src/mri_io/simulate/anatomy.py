"""The anatomy that simulated heads are made from: the MNI152 T1 with its tissue maps.

The ``nilearn`` package carries the template of Fonov et al. (2011, doi:10.1016/j.neuroimage.2010.07.033) in its wheel,
so nothing is downloaded. It is skull-stripped; `Anatomy.outline` says where a skull belongs.
"""

from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from scipy import ndimage

from mri_io.errors import MissingPackageError

__all__ = ["Anatomy", "load_anatomy"]

PADDING_MM = 24
FLUID = 0.27
"""Template intensity of cerebrospinal fluid, where white matter has 0.96 and grey matter 0.71."""
CLOSING_MM = 16.0
"""The skull bridges fissures of the brain narrower than twice this."""
_LOADING = Lock()


@dataclass(frozen=True)
class Anatomy:
    """Template maps in the order (z, y, x), float32.

    Attributes
    ----------
    t1
        Intensity on a 1 mm grid, white matter about one; fluid outside the brain.
    gm, wm
        Probabilities of grey and white matter on the same grid.
    outline
        Signed distance in mm to the inner surface of the skull, negative inside, on every other voxel of the grid.
    origin
        The voxel of MNI (0, 0, 0) on the 1 mm grid.
    """

    t1: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    outline: np.ndarray
    origin: np.ndarray


def load_anatomy() -> Anatomy:
    """Load the template from the installed ``nilearn`` package.

    Raises
    ------
    MissingPackageError
        When nilearn is not installed.
    """
    with _LOADING:
        return _load()


@cache
def _load() -> Anatomy:
    images = _template_images()
    maps = [np.asarray(image.dataobj, np.float32).transpose(2, 1, 0) for image in images]
    t1, gm, wm = (np.pad(m, PADDING_MM) for m in maps)
    brain = np.asarray(ndimage.binary_fill_holes((gm + wm > 0.3) | (t1 > 0.25 * t1.max())))
    t1 = np.where(brain, t1 / np.percentile(t1[brain], 99), np.float32(FLUID))
    origin = np.linalg.inv(images[0].affine)[:3, 3][::-1] + PADDING_MM
    return Anatomy(t1.astype(np.float32), gm, wm, _outline(brain[::2, ::2, ::2], 2.0), origin)


def _template_images() -> list[Any]:
    try:
        from nilearn.datasets import (
            load_mni152_gm_template,
            load_mni152_template,
            load_mni152_wm_template,
        )
    except ImportError as error:
        raise MissingPackageError(
            "The simulated brains need the template that nilearn carries. Install it: pip install 'mri-io[demo]'"
        ) from error
    loaders = (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    return [load(resolution=1) for load in loaders]


def _outline(brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Return the signed distance to the closed and smoothed brain."""
    grown = voxel_mm * ndimage.distance_transform_edt(~ndimage.binary_opening(brain)) < CLOSING_MM
    closed = voxel_mm * ndimage.distance_transform_edt(grown) > CLOSING_MM
    outside, inside = (ndimage.distance_transform_edt(part) for part in (~closed, closed))
    return np.asarray(ndimage.gaussian_filter(voxel_mm * (outside - inside), 1.5), np.float32)
