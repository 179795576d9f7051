"""Cohorts of volumes of elements: written whole or not at all, read lazily, verified by checksum."""

from importlib import import_module
from typing import Any

_LAZY = {
    "Cohort": "cohort",
    "Element": "element",
    "ElementWriter": "writing",
    "IndexRow": "index",
    "MigrationReport": "migration",
    "Problem": "verification",
    "Removal": "removal",
    "Split": "splits",
    "VerifyReport": "verification",
    "Volume": "volume",
    "build_index": "index",
    "collect_garbage": "garbage",
    "compute_statistics": "statistics",
    "create_cohort": "cohort",
    "make_split": "splits",
    "make_volume_id": "volume",
    "mask_array": "element",
    "migrate": "migration",
    "open_cohort": "cohort",
    "open_volume": "volume",
    "quantise": "embeddings",
    "query_index": "index",
    "read_embedding": "embeddings",
    "read_statistics": "statistics",
    "remove": "removal",
    "verify": "verification",
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"mri_io.store.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
