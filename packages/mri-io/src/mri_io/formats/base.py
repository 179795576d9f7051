"""What a format reader gives: its volumes found, and each read in blocks so that memory stays bounded."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mri_io.schema.attributes import Header

__all__ = ["Format", "RawElement", "RawVolume", "SourceItem", "file_sha256", "identify", "plain"]


@dataclass(frozen=True)
class SourceItem:
    """One volume to convert.

    `path` is what errors name, `files` what its hash covers, `label` what progress shows.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawElement:
    """One element as a reader gives it: shape, dtype and blocks along the first dimension, read when asked for."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[np.ndarray]]
    dims: tuple[str, ...] | None = None
    affine: np.ndarray | None = None
    labels: Mapping[int, Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str, array: np.ndarray, **options: Any) -> "RawElement":
        """Describe an array that is in memory."""
        return cls(path, array.shape, array.dtype, lambda: iter([array]), **options)


@dataclass(frozen=True)
class RawVolume:
    """A volume as a reader gives it. `subject` and `acquisition` are plain names, not yet ids."""

    subject: str
    acquisition: str
    elements: tuple[RawElement, ...]
    header: Header = field(default_factory=Header)
    session: str | None = None
    affine: np.ndarray | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Format(Protocol):
    """A reader of one file format or data-set layout."""

    name: str
    summary: str

    def sniff(self, path: Path) -> bool:
        """Whether a file or folder is of this format, by its content."""

    def find(self, path: Path) -> list[SourceItem]:
        """Return the volumes of a file or folder that `sniff` accepted."""

    def read(self, item: SourceItem) -> RawVolume:
        """Read one volume; raise FormatError where the file is not what it should be."""


def file_sha256(files: tuple[Path, ...]) -> str:
    """Return the SHA-256 of the contents of files, in order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def plain(text: str) -> str:
    """Reduce text to letters and digits, the only characters of ids."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


_BIDS = re.compile(r"^sub-(?P<sub>[A-Za-z0-9]+)(?:_ses-(?P<ses>[A-Za-z0-9]+))?")


def identify(stem: str, patient: str | None = None) -> tuple[str, str | None]:
    """Return pseudonym and session for a file.

    A stem in the form ``sub-X[_ses-Y]`` is taken as the pseudonym it is. Anything else, patient ids above all, goes
    through SHA-256, of which the first 12 digits are kept: the same patient gets the same pseudonym in every file.
    """
    found = _BIDS.match(stem)
    if found:
        return f"sub-{found['sub']}", found["ses"]
    digest = hashlib.sha256((patient or stem).encode()).hexdigest()
    return f"sub-{digest[:12]}", None
