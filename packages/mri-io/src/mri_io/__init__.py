"""A chunked, verified zarr store for MRI data, from raw k-space to label maps.

Names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "Cohort": "mri_io.store",
    "Element": "mri_io.store",
    "Header": "mri_io.schema",
    "MriError": "mri_io.errors",
    "Provenance": "mri_io.schema",
    "Source": "mri_io.schema",
    "Split": "mri_io.store",
    "Volume": "mri_io.store",
    "create_cohort": "mri_io.store",
    "make_split": "mri_io.store",
    "open_cohort": "mri_io.store",
    "open_volume": "mri_io.store",
    "verify": "mri_io.store",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
