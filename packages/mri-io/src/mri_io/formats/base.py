"""What a format reader gives: its volumes found, and each read in blocks so that memory stays bounded."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mri_io.schema.attributes import Header

__all__ = ["Format", "Identity", "RawElement", "RawVolume", "SourceItem", "file_sha256", "identify", "plain"]


@dataclass(frozen=True)
class SourceItem:
    """One volume to convert.

    `path`, absolute, is what errors name, `files` what its hash covers, `label` what progress and the record of
    failures show, each item's own. `problem` says why it cannot be read, where that showed when it was found.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Identity:
    """Whose scan it is: pseudonym, session and acquisition of the volume's id.

    `patient` holds what the file calls the patient. It never reaches the store: it is there to be searched for.
    """

    subject: str
    acquisition: str
    session: str | None = None
    patient: str | None = None


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
    """A volume as a reader gives it."""

    elements: tuple[RawElement, ...]
    header: Header = field(default_factory=Header)
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Format(Protocol):
    """A reader of one file format or data-set layout."""

    name: str
    summary: str

    def sniff(self, path: Path) -> bool:
        """Whether a file or folder is of this format, by its content."""

    def find(self, path: Path) -> list[SourceItem]:
        """Return the volumes of a file or folder that `sniff` accepted."""

    def identify(self, item: SourceItem) -> Identity:
        """Return whose scan a volume is, from metadata alone; raise FormatError where there is none to read."""

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


_BIDS = re.compile(r"sub-(?P<sub>[A-Za-z0-9]+)(?:_ses-(?P<ses>[A-Za-z0-9]+))?(?=_|$)")
_SUBJECT_FOLDER = re.compile(r"sub-[A-Za-z0-9]+")


def identify(path: Path, stem: str, acquisition: str, patient: str | None = None) -> Identity:
    """Return the identity of a file.

    A stem in the form ``sub-X[_ses-Y]`` is taken as the pseudonym it is, else a folder ``sub-X`` above the file.
    Otherwise the pseudonym is the first 12 digits of the SHA-256 of the patient's id: one patient gets one pseudonym
    in every file. A file that names no patient counts as a subject of its own, after its folder and name.
    """
    acquisition = plain(acquisition)
    found = _BIDS.match(stem)
    if found:
        return Identity(f"sub-{found['sub']}", acquisition, found["ses"], patient)
    parents = path.resolve().parents
    if not patient:
        folder = next((f.name for f in parents if _SUBJECT_FOLDER.fullmatch(f.name)), None)
        if folder is not None:
            return Identity(folder, acquisition)
    digest = hashlib.sha256((patient or f"{parents[0].name}/{stem}").encode()).hexdigest()
    return Identity(f"sub-{digest[:12]}", acquisition, patient=patient)
