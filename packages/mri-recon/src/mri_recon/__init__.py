"""Reconstruct images from k-space: operators, calibration, classical methods, networks, training.

Names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "RunConfig": "mri_recon.config",
    "SenseOperator": "mri_recon.physics",
    "VarNet": "mri_recon.networks",
    "calibrate": "mri_recon.calibrate",
    "cg_sense": "mri_recon.classical",
    "espirit": "mri_recon.calibration",
    "evaluate": "mri_recon.evaluate",
    "fft2c": "mri_recon.physics",
    "ifft2c": "mri_recon.physics",
    "run": "mri_recon.run",
    "train": "mri_recon.training",
    "zero_filled": "mri_recon.classical",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
