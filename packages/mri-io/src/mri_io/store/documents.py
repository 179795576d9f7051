"""JSON files of a cohort (``cohort.json``, splits, statistics, evaluations): sealed as the metadata of volumes are."""

import json
from collections.abc import Mapping
from typing import Any

from mri_io.errors import StoreError
from mri_io.store.damage import DamageError
from mri_io.store.durable import write_text_atomic
from mri_io.store.metadata import SEAL, matches_seal, sealed_text
from mri_io.store.remote.paths import AnyPath

__all__ = ["is_sealed", "read_document", "write_document"]


def write_document(path: AnyPath, content: Mapping[str, Any]) -> None:
    """Write a JSON file with a seal, atomically."""
    write_text_atomic(path, sealed_text({key: value for key, value in content.items() if key != SEAL}))


def read_document(path: AnyPath, *, strict: bool = True) -> dict[str, Any]:
    """Return the content of a JSON file without its seal.

    Parameters
    ----------
    path
        The file.
    strict
        Whether a file that does not match its seal is refused; one without a seal never is.

    Raises
    ------
    FileNotFoundError
        When there is no file.
    CorruptElementError
        When it holds no JSON mapping, or does not match its seal.
    StoreError
        When it cannot be read.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path}: not valid JSON: {error}. Restore it from a copy.", "metadata") from None
    if not isinstance(content, dict):
        raise DamageError(f"{path}: expected a mapping, got {type(content).__name__}.", "metadata")
    stored = content.pop(SEAL, None)
    if strict and stored is not None and not matches_seal(raw, stored):
        raise DamageError(
            f"{path}: the content does not match its seal ({SEAL}): it has been damaged or edited. "
            f"Restore it from a copy or make it again; after an edit on purpose remove the key {SEAL!r}.",
            "metadata",
        )
    return content


def is_sealed(path: AnyPath) -> bool:
    """Whether a JSON file carries a seal."""
    return SEAL in json.loads(path.read_bytes())
