"""Segment images and reconstructions of the store: train, run, evaluate.

Names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "RunConfig": "mri_seg.config",
    "build_network": "mri_seg.networks",
    "evaluate": "mri_seg.evaluate",
    "predict": "mri_seg.inference",
    "run": "mri_seg.run",
    "train": "mri_seg.training",
    "volume_metrics": "mri_seg.metrics",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
