"""Damage to stored data, with its kind, and what to say of it."""

from typing import Literal

from mri_io.errors import CorruptElementError

__all__ = ["REMEDY", "VOLUME_REMEDY", "DamageError", "Kind", "bad_checksum"]

Kind = Literal["checksum", "missing", "size", "metadata", "rule", "label", "version"]
"""What is wrong: bytes against their checksum; a file or chunk that is not there; a file of the wrong length; damaged
or foreign metadata; data against the rules of the specification; a label id that is not declared; a newer version."""

REMEDY = (
    "Restore it from a copy, or remove the element (mri-cli remove COHORT VOLUME ELEMENT) and make it again with the "
    "command that made it."
)
VOLUME_REMEDY = (
    "Restore it from a copy, or remove the volume (mri-cli remove COHORT VOLUME) and convert its source again."
)


class DamageError(CorruptElementError):
    """Stored bytes are not what they were: the error that readers raise, with its kind for `verify`."""

    def __init__(self, message: str, kind: Kind = "checksum") -> None:
        super().__init__(message)
        self.kind: Kind = kind

    def __reduce__(self) -> tuple[type["DamageError"], tuple[str, Kind]]:
        """Let the error travel between processes."""
        return type(self), (str(self), self.kind)


def bad_checksum(where: str) -> DamageError:
    """Return the error for bytes that do not match their checksum."""
    return DamageError(f"{where}: the bytes do not match their checksum: the file has been damaged. {REMEDY}")
