"""What a format reader gives: its volumes found, and each read in blocks so that memory stays bounded."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Literal

import numpy as np

from mri_io.config import Config
from mri_io.errors import MissingPackageError
from mri_io.formats.names import is_anonymous
from mri_io.formats.vocabulary import known_sequence
from mri_io.schema.attributes import Header

__all__ = [
    "Format",
    "Identity",
    "RawElement",
    "RawVolume",
    "ReadOptions",
    "SourceItem",
    "file_sha256",
    "identify",
    "import_extra",
    "personal_texts",
    "place_pseudonym",
    "plain",
    "without_texts",
]


class ReadOptions(Config):
    """What may be chosen of how files are read; each reader says in `Format.options` which of these it follows."""

    axes: tuple[str, ...] | None = None
    """Names of the dimensions of arrays that do not name their own, first to last: coil, y, x, ..."""
    variable: str | None = None
    """Name of the array in files that hold several."""
    oversampling: Literal["remove", "keep"] = "remove"
    """What becomes of the oversampling of the readout."""
    noise: Literal["keep", "prewhiten"] = "keep"
    """Noise scans: kept as the element ``noise``, or used to decorrelate the coils, and kept all the same."""

    def chosen(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON values."""
        values = self.model_dump(mode="json")
        return {name: value for name, value in values.items() if value != type(self).model_fields[name].default}


@dataclass(frozen=True)
class SourceItem:
    """One volume to convert.

    Attributes
    ----------
    format
        Name of its reader.
    path
        Absolute; what errors name, and what the name in the store is made of.
    files
        What its hash covers, in order.
    label
        What progress and the record of failures show, each item's own.
    options
        What the reader found that it needs again for reading; ``group`` names a part of a file that holds several
        volumes, ``labels`` holds the names of the ids of label maps, ``{map: {id: name}}``.
    choices
        What the user chose.
    problem
        Why it cannot be read, where that showed when it was found.
    """

    format: str
    path: Path
    files: tuple[Path, ...]
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: ReadOptions = field(default_factory=ReadOptions)
    problem: str = ""


@dataclass(frozen=True)
class Identity:
    """Whose scan it is: pseudonym, session and acquisition of the volume's id.

    `patient` holds what the file calls the patient, `aliases` what else in it tells who that is (name, birth date).
    They never reach the store: they are there to be searched for. `place` is set where nothing names the subject: the
    names of the folders above the file, from the root, and of the file itself; the last two make the pseudonym.
    """

    subject: str
    acquisition: str
    session: str | None = None
    patient: str | None = None
    aliases: tuple[str, ...] = ()
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawElement:
    """One element as a reader gives it: shape, dtype, and blocks in C order that are read when asked for.

    A block is rows of the first dimension, shape ``(n, *shape[1:])``, or finer where a row would be too much for
    memory: it may lack leading dimensions, and then is rows of a later one. Of k-space (echo, slice, coil, ky, kx)
    blocks ``(n, coil, ky, kx)`` are some slices of one echo; each ends with its echo at the latest, and the next begins
    where it ended. Chunks are not divided: the dimensions from coil on are whole (`ArrayType.inner`).
    """

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


class Format(ABC):
    """A reader of one file format or data-set layout.

    Other packages register theirs, class or instance, in the entry-point group ``mri_io.formats`` under its name.
    """

    name: ClassVar[str]
    """What ``--format`` takes and provenance records."""
    summary: ClassVar[str]
    """One line: the layout and what is read of it."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Names of the `ReadOptions` that it follows."""
    options_when_named: ClassVar[frozenset[str]] = frozenset()
    """Those that it follows only where ``--format`` names it: beside other sources they are meant for those."""
    endings: ClassVar[tuple[str, ...]] = ()
    """Of names, in lower case: a file of such a name that no reader knows by its content is for this one to refuse."""
    brings_labels: ClassVar[bool] = False
    """Whether every source has its label maps with it: ``--labels`` names their ids, and gives it no further maps."""

    @abstractmethod
    def sniff(self, path: Path) -> bool:
        """Whether a file, or a folder that is one data set, is of this format, by its content; without extras."""

    def find(self, path: Path) -> list[SourceItem]:
        """Return the volumes of a file or folder that `sniff` accepted; by default a file is one volume."""
        return [SourceItem(self.name, path, (path,), path.name)]

    def gather(self, items: Sequence[SourceItem]) -> list[SourceItem]:
        """Join what `find` found in all sources: slices into series, label maps to their images.

        `label` and `path` of a joined item are those of its first; by default nothing is joined.
        """
        return list(items)

    @abstractmethod
    def identify(self, item: SourceItem) -> Identity:
        """Return whose scan a volume is, from metadata alone; raise FormatError where there is none to read."""

    @abstractmethod
    def read(self, item: SourceItem) -> RawVolume:
        """Read one volume; raise FormatError where the file is not what it should be."""

    def split_of(self, item: SourceItem) -> Mapping[str, str] | None:
        """Return the parts that a data set itself puts a volume in, ``{name of the split: part}``.

        Parts are ``train``, ``val`` and ``test``. When all volumes are converted the split is stored under its name, by
        subject; a subject in two parts is an error. By default there is none.
        """
        return None

    def is_fragile(self, path: Path) -> bool:
        """Whether a native library would parse this file or folder, which may hang or crash on damaged ones.

        Conversion then works on it in a child process; see `mri_io.formats.isolation`. To be told without that library.
        """
        return False

    def memory(self, item: SourceItem) -> int:
        """Return the most bytes that reading and writing the volume holds at once, from sizes alone.

        By default three times the files: packed, unpacked, and converted. Readers that stream say less, those of
        compressed files more.
        """
        return 3 * sum(file.stat().st_size for file in item.files)


def import_extra(module: str, extra: str) -> Any:
    """Import an optional package; MissingPackageError says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingPackageError(
            f"{package} is needed and not installed ({error}). Install it: pip install 'mri-io[{extra}]'"
        ) from error


def file_sha256(files: tuple[Path, ...], stop: Event | None = None) -> str:
    """Return the SHA-256 of the contents of files, in order; CancelledError soon after `stop` is set."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                if stop is not None and stop.is_set():
                    raise CancelledError
                digest.update(block)
    return digest.hexdigest()


def plain(text: str) -> str:
    """Reduce text to letters and digits, the only characters of ids."""
    return re.sub(r"[^A-Za-z0-9]", "", text)


_BIDS = re.compile(r"sub-(?P<sub>[A-Za-z0-9]+)(?:_ses-(?P<ses>[A-Za-z0-9]+))?(?=_|$)")
_SUBJECT_FOLDER = re.compile(r"sub-[A-Za-z0-9]+")


_NAME_PARTS = re.compile(r"[\^=\s,_]+")
_SHORTEST = 2
"""Letters of what is redacted."""


def identify(
    path: Path,
    stem: str,
    acquisition: str,
    patient: str | None = None,
    *,
    study: str | None = None,
    aliases: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Identity:
    """Return the identity of a file.

    A stem in the form ``sub-X[_ses-Y]`` is taken as the pseudonym it is, else a folder ``sub-X`` above the file.
    Otherwise the pseudonym is the first 12 digits of the SHA-256 of the patient's id: one patient gets one pseudonym
    in every file. Files that name no patient, or nobody as `is_anonymous` has it, are of one subject where they are of
    one study, as patients have; without a study each counts as a subject of its own, after its folder and name.

    Parameters
    ----------
    path, stem
        The file, and what its name says.
    acquisition
        Acquisition of the volume's id; other characters than letters and digits are left out, and what tells whose scan
        it is, unless they are words for sequences, as `known_sequence` has them.
    patient
        What the file calls the patient: id, or else name.
    study
        What all files of one visit, and no others, have in common; only its hash is kept.
    aliases
        Other names, ids and dates of the patient. Of names, ``DOE^JOHN`` or ``John Doe``, each part is redacted too.
    whole
        What else is to be redacted, but not in parts: institutions and addresses hold common words.
    """
    patient = None if is_anonymous(patient) else patient
    others = tuple(text for text in personal_texts(aliases, whole) if text != patient)
    acquisition = _acquisition(acquisition, (*others, *([patient] if patient else [])))
    found = _BIDS.match(stem)
    if found:
        return Identity(f"sub-{found['sub']}", acquisition, found["ses"], patient, others)
    if patient:
        return Identity(_pseudonym(patient), acquisition, patient=patient, aliases=others)
    parents = path.resolve().parents
    folder = next((f.name for f in parents if _SUBJECT_FOLDER.fullmatch(f.name)), None)
    if folder is not None:
        return Identity(folder, acquisition, aliases=others)
    if study:
        return Identity(_pseudonym(study), acquisition, aliases=others)
    place = (*(parent.name for parent in reversed(parents)), stem)
    return Identity(place_pseudonym(place), acquisition, aliases=others, place=place)


def personal_texts(names: Sequence[str], whole: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what is to be redacted, the longest first: names, their parts, and texts that are redacted as a whole.

    What tells nobody, as `is_anonymous` has it, and single letters are left out.
    """
    names, whole = ([text for text in texts if not is_anonymous(text)] for texts in (names, whole))
    parts = (part for text in names for part in _NAME_PARTS.split(text) if any(c.isalpha() for c in part))
    known = {text for text in (*names, *whole, *parts) if len(text) >= _SHORTEST}
    return tuple(sorted(known, key=lambda text: (-len(text), text)))


def _acquisition(text: str, known: Sequence[str]) -> str:
    """Return the acquisition of a volume's id, whoever made its text."""
    if known_sequence(text) != text:
        # Ids have no hyphens, nor has what was made for one.
        text = without_texts(text, [*known, *map(plain, known)], "")
    return plain(text) or "redacted"


def place_pseudonym(place: Sequence[str], folders: int = 1) -> str:
    """Return the pseudonym of a file that names no patient, after so many folders above it and its name."""
    return _pseudonym("/".join(place[-folders - 1 :]))


def _pseudonym(text: str) -> str:
    return f"sub-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def without_texts(text: str, known: Sequence[str], replacement: str) -> str:
    """Return text in which others are replaced, whatever their case; those of two letters as words of their own.

    Examples
    --------
    >>> without_texts("Li_t1: flip angle of LI and olivia.doe", ["Li", "Doe"], "X")
    'X_t1: flip angle of X and olivia.X'
    """
    # Long ones first: a name is replaced as a whole before its parts are.
    texts = sorted({one for one in known if len(one) >= _SHORTEST}, key=lambda one: (-len(one), one))
    if not texts:
        return text
    word = r"(?<![^\W_]){}(?![^\W_])"  # such short ones are part of too many words
    patterns = (word.format(re.escape(one)) if len(one) == _SHORTEST else re.escape(one) for one in texts)
    return re.sub("|".join(patterns), lambda _: replacement, text, flags=re.IGNORECASE)
