"""Which volume of a cohort a source is: the pseudonym and the run number that it has, or gets."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from mri_io.errors import CorruptElementError, StoreError
from mri_io.formats.base import Identity, place_pseudonym, without_texts
from mri_io.formats.names import stored_name
from mri_io.store.cohort import Cohort
from mri_io.store.volume import Volume

__all__ = ["CohortNumbers", "SourceName", "without_patient"]

_RUN = "_run-"


@dataclass(frozen=True)
class SourceName:
    """By what a source is known in a cohort.

    Attributes
    ----------
    path
        The file.
    identity
        Whose it is.
    group
        Which volume of the file it is, where it holds several.
    """

    path: Path
    identity: Identity
    group: str | None = None

    @property
    def start(self) -> str:
        """The volume's id before the run number."""
        session = f"_ses-{self.identity.session}" if self.identity.session else ""
        return f"{self.identity.subject}{session}_acq-{self.identity.acquisition}{_RUN}"

    @property
    def uri(self) -> str:
        """The file's name as it may be stored, and the group."""
        redacted = without_patient(self.path.name, self.identity)
        name = stored_name(redacted)
        # A pseudonym in the place of a name must not make what is left of it look like a harmless name.
        if name == redacted and stored_name(self.path.name) != self.path.name:
            name = stored_name(self.path.name)
        return name if self.group is None else f"{name}:{stored_name(self.group)}"

    @property
    def place(self) -> str:
        """A hash of the file's path, which tells it from another file of its name, on this machine."""
        path = self.path.parent.resolve() / self.path.name
        return hashlib.sha256(str(path).encode()).hexdigest()

    @property
    def work(self) -> str:
        """A name for the making of its volume, the same whatever else is converted with it."""
        text = self.place if self.group is None else f"{self.place}:{self.group}"
        return f"convert-{hashlib.sha256(text.encode()).hexdigest()}"

    def names(self) -> "list[SourceName]":
        """Return the source under all pseudonyms that `CohortNumbers.with_subject` may give it, its own first."""
        place = self.identity.place
        longer = [_after(self, folders) for folders in range(1, len(place))]
        return [self, *(one for one in longer if one != self)] if self in longer else [self]

    def made(self, volume: Volume) -> bool:
        """Whether a volume was made from this source: from a file of its name, or from the very file."""
        return _Members.of({0: volume}).number(self) is not None


@dataclass
class _Members:
    """The run numbers of one subject, session and acquisition, and the sources that they were given to.

    What those of `damaged` volumes were given to cannot be read.
    """

    taken: set[int] = field(default_factory=set)
    by_uri: dict[str, int] = field(default_factory=dict)
    by_place: dict[tuple[str, str], int] = field(default_factory=dict)
    damaged: dict[int, CorruptElementError] = field(default_factory=dict)

    @classmethod
    def of(cls, volumes: dict[int, Volume]) -> "_Members":
        members = cls(set(volumes))
        for number, volume in sorted(volumes.items()):
            if volume.source is not None:
                # Earlier versions stored names as they were.
                uri = ":".join(map(stored_name, volume.source.uri.split(":")))
                members.by_uri.setdefault(uri, number)
                place = (volume.attributes.get("converter") or {}).get("source_path_sha256")
                if place is not None:
                    members.by_place.setdefault((place, uri.partition(":")[2]), number)
        return members

    def is_place(self, source: SourceName) -> bool:
        """Whether a volume was made from the very file."""
        return (source.place, source.uri.partition(":")[2]) in self.by_place

    def number(self, source: SourceName) -> int | None:
        """Return the number of a source, None when there is no volume of it."""
        # What is redacted in names, and so the names, may change between versions: the place says it, too.
        by_place = self.by_place.get((source.place, source.uri.partition(":")[2])) if self.by_place else None
        return self.by_uri.get(source.uri, by_place)

    def give(self, source: SourceName) -> int:
        """Return the number of a source, the lowest free one for a new one."""
        found = self.number(source)
        if found is None:
            found = next(number for number in count(1) if number not in self.taken)
            self.taken.add(found)
            self.by_uri[source.uri] = found
        return found


class CohortNumbers:
    """The ids of the volumes that a cohort has now, listed once, and those that new sources get beside them.

    Parameters
    ----------
    cohort
        Where the volumes are.
    of
        The names of one source, when no others are asked for: only volumes that may be made of it are looked at.
    """

    def __init__(self, cohort: Cohort, of: Sequence[SourceName] | None = None) -> None:
        self._cohort = cohort
        self._ids: dict[str, list[int]] = {}
        self._members: dict[str, _Members] = {}
        for volume_id in cohort.volume_ids(None if of is None else [source.start for source in of]):
            start, run, number = volume_id.rpartition(_RUN)
            if number.isdigit():
                self._ids.setdefault(start + run, []).append(int(number))

    def _of(self, start: str) -> _Members:
        if start not in self._members:
            volumes: dict[int, Volume] = {}
            damaged: dict[int, CorruptElementError] = {}
            for number in self._ids.get(start, []):
                try:
                    volumes[number] = self._cohort[f"{start}{number}"]
                except CorruptElementError as error:
                    damaged[number] = error
            members = _Members.of(volumes)
            members.taken |= damaged.keys()
            members.damaged = damaged
            self._members[start] = members
        return self._members[start]

    def give(self, source: SourceName) -> str:
        """Return the id of the volume of a source: that it has, or a new one with the lowest free run number.

        Raises
        ------
        StoreError
            When it has none, and may be that of a volume whose metadata are damaged.
        """
        members = self._of(source.start)
        if members.damaged and members.number(source) is None:
            number, error = min(members.damaged.items(), key=lambda item: item[0])
            volume_id = f"{source.start}{number}"
            raise StoreError(
                f"{source.path}: {volume_id}, which may have been converted from this file, is damaged: {error} "
                f"Here: mri-cli remove {self._cohort.path} {volume_id}"
            )
        return f"{source.start}{members.give(source)}"

    def find(self, source: SourceName) -> str | None:
        """Return the id of the volume of a source, None when there is none."""
        number = self._of(source.start).number(source)
        return None if number is None else f"{source.start}{number}"

    def is_place(self, source: SourceName) -> bool:
        """Whether the cohort has a volume of this very file under the source's name."""
        return source.start in self._ids and self._of(source.start).is_place(source)

    def with_subject(self, source: SourceName, others: Sequence[tuple[str, ...]]) -> SourceName:
        """Tell a source that names no patient from those that have the same folder and name.

        It keeps the pseudonym that it has in the cohort. A new one, where there are others, is made of as many folders
        above it as differ: of ``p1/anat/t1`` and ``p2/anat/t1`` two.

        Parameters
        ----------
        source
            Its pseudonym is made of one folder and its name.
        others
            Places (`Identity.place`) of all sources with this pseudonym, its own among them.
        """
        place = source.identity.place
        for folders in range(len(place) - 1, 1, -1):
            longer = _after(source, folders)
            known = self._of(longer.start) if longer.start in self._ids else _Members()
            if known.damaged or known.number(longer) is not None:
                return longer
        if len(others) == 1 or self.is_place(source):
            return source
        return _after(source, next(n for n in count(2) if len({other[-n - 1 :] for other in others}) == len(others)))


def _after(source: SourceName, folders: int) -> SourceName:
    subject = place_pseudonym(source.identity.place, folders)
    return replace(source, identity=replace(source.identity, subject=subject))


def without_patient(text: str, identity: Identity | None) -> str:
    """Return text in which what the file tells of the patient is replaced by the pseudonym."""
    if identity is None:
        return text
    public = (identity.subject, identity.subject.removeprefix("sub-"))
    known = [one for one in (identity.patient, *identity.aliases) if one and one not in public]
    return without_texts(text, known, identity.subject)
