"""Training shared by all packages: one configuration, one loop, one checkpoint format (extra ``train``).

Names are imported on first use, so that a configuration can be read without loading torch.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "Checkpoint": "mri_io.training.checkpoint",
    "TrainResult": "mri_io.training.loop",
    "TrainingConfig": "mri_io.training.config",
    "differing_keys": "mri_io.training.config",
    "load_checkpoint": "mri_io.training.checkpoint",
    "make_optimizer": "mri_io.training.optimizer",
    "save_checkpoint": "mri_io.training.checkpoint",
    "set_seed": "mri_io.training.seeding",
    "train": "mri_io.training.loop",
    "weights_hash": "mri_io.training.checkpoint",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
