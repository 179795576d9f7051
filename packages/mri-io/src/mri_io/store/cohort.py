"""A cohort: volumes, splits, statistics, evaluations and failures in one folder."""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

from mri_io.errors import (
    CorruptElementError,
    ElementExistsError,
    ElementNotFoundError,
    MriError,
    StoreError,
    VersionError,
    expected_got,
)
from mri_io.schema.attributes import Header, Source, now_utc
from mri_io.schema.elements import SCHEMA_VERSION
from mri_io.schema.readers import check_version
from mri_io.schema.validation import validate
from mri_io.store import evaluations, splits
from mri_io.store.checks import check_anonymous, check_attributes
from mri_io.store.commit import NODE, flush_node, is_committed, publish
from mri_io.store.documents import read_document, write_document
from mri_io.store.durable import storage_errors
from mri_io.store.element import Element
from mri_io.store.exclusive import exclusive
from mri_io.store.failures import Failures
from mri_io.store.metadata import SEAL
from mri_io.store.remote import commit as remote_commit
from mri_io.store.remote.cache import Cache
from mri_io.store.remote.paths import AnyPath, StorePath, map_concurrently, store_path
from mri_io.store.roots import holds_elements, locked, write_root
from mri_io.store.staging import staging
from mri_io.store.volume import Volume, open_volume

__all__ = ["Cohort", "create_cohort", "open_cohort", "volume_folders"]

_RESERVED = (
    "schema_version",
    "volume_id",
    "subject_id",
    "source",
    "converter",
    "created_utc",
    "header",
    SEAL,
)


def create_cohort(
    path: str | AnyPath,
    *,
    name: str | None = None,
    license: str = "",
    source_url: str = "",
    exist_ok: bool = True,
) -> "Cohort":
    """Create a cohort, or open the one that is there; `path` may be a URL.

    Raises
    ------
    ElementExistsError
        When there is one and `exist_ok` is false.
    StoreError
        When the folder holds something else.
    """
    folder = store_path(path)
    there = (folder / "cohort.json").is_file()
    if not there and folder.exists() and (not folder.is_dir() or not all(map(_is_begun, folder.iterdir()))):
        there = (folder / "cohort.json").is_file()  # another process may have made it meanwhile
        if not there:
            raise StoreError(
                f"{folder}: expected a new or empty folder for the cohort, found other files. Choose another folder."
            )
    if there:
        if not exist_ok:
            raise ElementExistsError(f"{folder}: there is a cohort already. Open it, or choose another folder.")
        return open_cohort(folder)
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "name": name or folder.resolve().name,
        "created": now_utc(),
        "license": license,
        "source_url": source_url,
    }
    validate("cohort", metadata, folder)
    if not isinstance(folder, StorePath):
        with storage_errors(folder):
            (folder / "volumes").mkdir(parents=True, exist_ok=True)
    write_document(folder / "cohort.json", metadata)
    return Cohort(folder, metadata)


def _is_begun(child: AnyPath) -> bool:
    """Whether this is left of a cohort whose making was killed, or is being made by another process."""
    return child.name.startswith(".cohort.json.") or (child.name == "volumes" and not any(child.iterdir()))


def open_cohort(path: str | AnyPath, *, cache: str | Path | None = None, cache_bytes: int | None = None) -> "Cohort":
    """Open a cohort.

    Parameters
    ----------
    path
        Its folder, or a URL such as ``s3://bucket/cohort``.
    cache, cache_bytes
        Of a URL: a local folder in which chunks that have been read are kept, and its bound in bytes, by default those
        that the environment variables MRI_IO_CACHE and MRI_IO_CACHE_SIZE name, without them no cache and 10 GiB.

    Raises
    ------
    StoreError
        When the folder is no cohort.
    VersionError
        When it was written by a newer major version.
    """
    kept = f"{cache}/" if isinstance(cache, Path) else cache
    folder = store_path(path, Cache.parse(kept, cache_bytes) if kept is not None else None)
    file = folder / "cohort.json"
    try:
        # Name, licence and address may be edited by hand; `verify` tells of it.
        metadata = read_document(file, strict=False)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"{folder}: there is no cohort here (no cohort.json). Make one: mri-cli convert SOURCE... {folder}"
        ) from None
    check_version(metadata.get("schema_version"), folder)
    validate("cohort", metadata, file)
    return Cohort(folder, metadata)


class Cohort:
    """A folder of volumes. The volumes are the truth; index and statistics are caches."""

    def __init__(self, path: AnyPath, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata: dict[str, Any] = dict(metadata)

    @property
    def name(self) -> str:
        """The cohort's name."""
        return str(self.metadata["name"])

    @property
    def volumes_path(self) -> AnyPath:
        """The folder that holds the volumes."""
        return self.path / "volumes"

    def _volume_path(self, volume_id: str) -> AnyPath:
        return self.volumes_path / f"{volume_id}.zarr"

    def volume_ids(self, starts: Sequence[str] | None = None) -> list[str]:
        """Return the ids of the committed volumes, sorted; only those that begin with one of `starts` when given."""
        folders = volume_folders(self.path)
        if starts is not None:
            folders = [folder for folder in folders if folder.name.startswith(tuple(starts))]
        committed = map_concurrently(is_committed, folders)
        return sorted(
            folder.name.removesuffix(".zarr") for folder, there in zip(folders, committed, strict=True) if there
        )

    def state(self, volume_id: str) -> Literal["committed", "absent", "orphan"]:
        """Return the state of a volume (rule R7): an orphan is a folder that was never committed."""
        folder = self._volume_path(volume_id)
        if is_committed(folder):
            return "committed"
        return "orphan" if folder.exists() else "absent"

    def volumes(
        self,
        split: str | None = None,
        part: str | None = None,
        *,
        on_damage: Callable[[str, MriError], None] | None = None,
    ) -> list[Volume]:
        """Return the committed volumes, those of one part of a split when `part` is given, sorted by id.

        Parameters
        ----------
        split, part
            Part of a split, of ``default`` where no split is named.
        on_damage
            Called with id and error of each volume whose metadata cannot be read, and the others are returned. Without
            it the error is raised: who computes something of all volumes does not want to miss one. Of a part are also
            the damaged volumes whose ids begin with its subjects.

        Raises
        ------
        CorruptElementError, VersionError
            When the metadata of a volume are damaged or newer than this release.
        """
        subjects = None if part is None else set(self.split(split or "default").subjects(part))
        folders = sorted(volume_folders(self.path), key=lambda folder: folder.name)
        chosen = []
        for folder, found in zip(folders, map_concurrently(_open_committed, folders), strict=True):
            volume_id = folder.name.removesuffix(".zarr")
            subject = found.subject_id if isinstance(found, Volume) else volume_id.partition("_")[0]
            if found is None or (subjects is not None and subject not in subjects):
                continue
            if isinstance(found, Volume):
                chosen.append(found)
            elif on_damage is None:
                raise found
            else:
                on_damage(volume_id, found)
        return chosen

    def __getitem__(self, volume_id: str) -> Volume:
        """Return a committed volume."""
        if volume_id not in self:
            ids = self.volume_ids()
            some = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "") or "none"
            raise ElementNotFoundError(
                f"{self.path}: there is no volume {volume_id!r}. It has {len(ids)} volumes: {some}."
            )
        return open_volume(self._volume_path(volume_id))

    def __contains__(self, volume_id: object) -> bool:
        """Whether a volume is committed."""
        plain = isinstance(volume_id, str) and Path(volume_id).name == volume_id
        return plain and is_committed(self._volume_path(str(volume_id)))

    def __iter__(self) -> Iterator[Volume]:
        """Yield the committed volumes, sorted by id, as `volumes` returns them; `volume_ids` are what ``[]`` takes."""
        return iter(self.volumes())

    def __len__(self) -> int:
        """Return the number of committed volumes."""
        return len(self.volume_ids())

    def exclusive(self, work: str) -> AbstractContextManager[None]:
        """Wait until no other process does the work of this name in this cohort, and keep others from it meanwhile."""
        return exclusive(self.volumes_path, work)

    @contextmanager
    def create_volume(
        self,
        volume_id: str,
        *,
        subject_id: str,
        source: Source | Callable[[], Source] | None = None,
        header: Header | None = None,
        converter: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        replace: bool = False,
    ) -> Iterator[Volume]:
        """Yield a volume to write elements into; it is published whole when the with-block ends.

        After an error or a kill nothing of it is visible, and a volume that was to be replaced is still there.

        Parameters
        ----------
        volume_id, subject_id
            ``sub-X[_ses-Y]_acq-Z_run-N`` (see `make_volume_id`) and the subject's pseudonym ``sub-X``.
        source
            The file that it is made from, or a function that tells it when all elements are written.
        header
            Acquisition parameters, SI units.
        converter
            ``{"package", "version"}`` and what else tells one conversion from another.
        attributes
            Further attributes, JSON values.
        replace
            Replace a committed volume, with all its elements: readers find the old one until they find the new one.

        Raises
        ------
        ElementExistsError
            When the volume is committed already and `replace` is false.
        SchemaError
            When an id or attribute does not follow the specification.
        """
        target = self._volume_path(volume_id)
        check_anonymous(converter, f"{target}: converter")
        content = {
            **check_attributes(attributes, _RESERVED, str(target)),
            "schema_version": SCHEMA_VERSION,
            "volume_id": volume_id,
            "subject_id": subject_id,
            "source": source.model_dump(mode="json") if isinstance(source, Source) else None,
            "converter": dict(converter) if converter else None,
            "created_utc": now_utc(),
            "header": (header or Header()).model_dump(mode="json"),
        }
        validate("volume", content, target)
        if volume_id in self and not replace:
            raise ElementExistsError(f"{target}: the volume is committed already. Remove it, or ask for replacement.")
        with staging(self.volumes_path) as folder:
            node = folder / NODE
            with storage_errors(target):
                node.mkdir()
            volume = Volume(node, content, staged=folder)
            yield volume
            if callable(source):
                content["source"] = volume.attributes["source"] = source().model_dump(mode="json")
                validate("volume", content, target)
            with storage_errors(target):
                write_root(node, content, folder)
            if isinstance(target, StorePath):
                remote_commit.publish(node, target, replace=replace)
            else:
                flush_node(folder, target)
                with storage_errors(target), locked(target):
                    publish(folder, target, replace=replace)
            volume.path, volume._staged = target, None

    def remove_volume(self, volume_id: str) -> None:
        """Remove a committed volume, also a damaged one: it vanishes at once, its files thereafter."""
        path = self._volume_path(volume_id)
        lost_root = Path(volume_id).name == volume_id and holds_elements(path)
        if volume_id not in self and not lost_root:
            self[volume_id]  # raises, with the list of volumes
        if isinstance(path, StorePath):
            remote_commit.remove_node(path)
            return
        with staging(self.volumes_path) as folder, storage_errors(path), locked(path):
            path.rename(folder / "removed")  # not while an element joins it: another volume may come in its place

    def split(self, name: str = "default") -> splits.Split:
        """Read a split."""
        return splits.read_split(self, name)

    def write_split(self, split: splits.Split) -> AnyPath:
        """Write a split."""
        return splits.write_split(self, split)

    def record_failure(
        self, item: str | Path | Source | Volume, error: BaseException | str, stage: str, *, trace: str = ""
    ) -> None:
        """Add a row to ``failures.jsonl``: what failed, at which stage, why; the row reaches the disk (rule R5).

        Parameters
        ----------
        item
            A volume or its id, or the source that did not become one.
        error
            The error or its text.
        stage
            What was being done.
        trace
            A traceback, where `error` is text.
        """
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if isinstance(error, BaseException):
            trace = "".join(traceback.format_exception(error))
        row = {"item": _name(item), "stage": stage, "error": text, "traceback": trace, "created_utc": now_utc()}
        Failures(self.path).append(row)

    def failures(self) -> list[dict[str, Any]]:
        """Return the recorded failures that have not been cleared."""
        return Failures(self.path).rows()

    def clear_failures(self, stage: str) -> list[dict[str, Any]]:
        """Remove the rows of a stage, of all items, and return them: of work that nobody will do again.

        Raises
        ------
        ElementNotFoundError
            When there are none, with the stages that there are.
        """
        rows = self.failures()
        found = [row for row in rows if row.get("stage") == stage]
        if not found:
            stages = sorted({str(row.get("stage")) for row in rows}) or "none"
            where = self.path / "failures.jsonl"
            raise ElementNotFoundError(expected_got("stage", expected=stages, got=repr(stage), where=where))
        Failures(self.path).clear(None, stage)
        return found

    def clear_failure(self, item: str | Path | Source | Volume, stage: str | None = None) -> None:
        """Remove the rows of an item, at one stage or at all, after it succeeded."""
        Failures(self.path).clear(_name(item), stage)

    def write_evaluation(
        self,
        name: str,
        *,
        task: str,
        rows: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, Mapping[str, str]] | None = None,
        config: Mapping[str, Any] | None = None,
        inputs: Sequence[Mapping[str, str] | Element] = (),
        missing: Sequence[Mapping[str, str]] = (),
        overwrite: bool = True,
        figure: bytes | None = None,
    ) -> AnyPath:
        """Write ``evaluations/<name>.json``, ``.csv`` and ``.png``; see `mri_io.store.evaluations`."""
        return evaluations.write_evaluation(
            self.path,
            name,
            task=task,
            rows=rows,
            metrics=metrics,
            config=config,
            inputs=inputs,
            missing=missing,
            overwrite=overwrite,
            figure=figure,
        )

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Return all evaluations by name."""
        return evaluations.read_evaluations(self.path)

    def __repr__(self) -> str:
        """Return name and size."""
        return f"<Cohort {self.name}: {len(self)} volumes at {self.path}>"


def volume_folders(cohort: AnyPath) -> list[AnyPath]:
    """Return the folders of volumes, committed or not; the index names them where a server does not list."""
    volumes = cohort / "volumes"
    if not isinstance(volumes, StorePath) or volumes.backend.lists:
        return list(volumes.glob("*.zarr"))
    try:
        lines = (cohort / "index.jsonl").read_bytes().splitlines()
        return [volumes / f"{json.loads(line)['id']}.zarr" for line in lines]
    except FileNotFoundError:
        raise StoreError(
            f"{cohort}: this server does not list its files, and there is no index.jsonl that names the volumes. Make "
            "one where the cohort is: mri-cli index COHORT"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{cohort}/index.jsonl: cannot be read: {error!r}. Rebuild it: mri-cli index COHORT") from None


def _open_committed(folder: AnyPath) -> Volume | MriError | None:
    """Return a volume, why it cannot be opened, or None for an orphan and for what was removed meanwhile."""
    try:
        return open_volume(folder)
    except ElementNotFoundError as error:
        return error if is_committed(folder) else None
    except (CorruptElementError, VersionError) as error:
        return error


def _name(item: str | Path | Source | Volume) -> str:
    if isinstance(item, Source):
        return item.uri
    return item.id if isinstance(item, Volume) else str(item)
