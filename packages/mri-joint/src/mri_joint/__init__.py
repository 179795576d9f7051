"""Train reconstruction and segmentation end to end: train, run, evaluate.

Names are imported on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "JointOutput": "mri_joint.models",
    "JointTask": "mri_joint.training",
    "ReconstructThenSegment": "mri_joint.models",
    "RunConfig": "mri_joint.config",
    "build_network": "mri_joint.models",
    "evaluate": "mri_joint.evaluate",
    "focused_metrics": "mri_joint.metrics",
    "load_network": "mri_joint.models",
    "load_run_config": "mri_joint.resolve",
    "run": "mri_joint.run",
    "sampled_fraction": "mri_joint.curriculum",
    "train": "mri_joint.training",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
