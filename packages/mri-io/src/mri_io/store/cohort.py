"""A cohort: volumes, splits, statistics, evaluations and failures in one folder."""

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mri_io.errors import ElementExistsError, ElementNotFoundError, StoreError, expected_got
from mri_io.schema.attributes import Header, Source, now_utc
from mri_io.schema.elements import SCHEMA_VERSION
from mri_io.schema.validation import validate
from mri_io.store import evaluations, splits
from mri_io.store.commit import NODE, publish, staging, storage_errors, write_group, write_json_atomic
from mri_io.store.failures import Failures
from mri_io.store.volume import Volume, check_version, open_volume

__all__ = ["Cohort", "create_cohort", "open_cohort"]


def create_cohort(
    path: str | Path,
    *,
    name: str | None = None,
    license: str = "",
    source_url: str = "",
    exist_ok: bool = True,
) -> "Cohort":
    """Create a cohort, or open the one that is there.

    Raises
    ------
    ElementExistsError
        When there is one and `exist_ok` is false.
    StoreError
        When the folder holds something else.
    """
    folder = Path(path)
    if (folder / "cohort.json").is_file():
        if not exist_ok:
            raise ElementExistsError(f"{folder}: there is a cohort already. Open it, or choose another folder.")
        return open_cohort(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(
            f"{folder}: expected a new or empty folder for the cohort, found other files. Choose another folder."
        )
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "name": name or folder.resolve().name,
        "created": now_utc(),
        "license": license,
        "source_url": source_url,
    }
    validate("cohort", metadata, folder)
    with storage_errors(folder):
        (folder / "volumes").mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / "cohort.json", metadata)
    return Cohort(folder, metadata)


def open_cohort(path: str | Path) -> "Cohort":
    """Open a cohort.

    Raises
    ------
    StoreError
        When the folder is no cohort.
    VersionError
        When it was written by a newer major version.
    """
    folder = Path(path)
    file = folder / "cohort.json"
    try:
        metadata = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"{folder}: there is no cohort here (no cohort.json). Make one: mri-cli convert SOURCE... {folder}"
        ) from None
    except ValueError as error:
        raise StoreError(f"{file}: not valid JSON: {error}. Restore it from a copy.") from None
    if not isinstance(metadata, dict):
        raise StoreError(expected_got("content", expected="a mapping", got=type(metadata).__name__, where=file))
    check_version(metadata.get("schema_version"), folder)
    validate("cohort", metadata, file)
    return Cohort(folder, metadata)


class Cohort:
    """A folder of volumes. The volumes are the truth; index and statistics are caches."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata: dict[str, Any] = dict(metadata)

    @property
    def name(self) -> str:
        """The cohort's name."""
        return str(self.metadata["name"])

    @property
    def volumes_path(self) -> Path:
        """The folder that holds the volumes."""
        return self.path / "volumes"

    def _volume_path(self, volume_id: str) -> Path:
        return self.volumes_path / f"{volume_id}.zarr"

    def volume_ids(self) -> list[str]:
        """Return the ids of the committed volumes, sorted."""
        return sorted(
            folder.name.removesuffix(".zarr")
            for folder in self.volumes_path.glob("*.zarr")
            if (folder / "zarr.json").is_file()
        )

    def volumes(self, split: str | None = None, part: str | None = None) -> list[Volume]:
        """Return the committed volumes, those of one part of a split when `part` is given."""
        found = [open_volume(self._volume_path(volume_id)) for volume_id in self.volume_ids()]
        if part is None:
            return found
        subjects = set(self.split(split or "default").subjects(part))
        return [volume for volume in found if volume.subject_id in subjects]

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
        return isinstance(volume_id, str) and (self._volume_path(volume_id) / "zarr.json").is_file()

    def __len__(self) -> int:
        """Return the number of committed volumes."""
        return len(self.volume_ids())

    @contextmanager
    def create_volume(
        self,
        volume_id: str,
        *,
        subject_id: str,
        source: Source | None = None,
        header: Header | None = None,
        converter: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Iterator[Volume]:
        """Yield a volume to write elements into; it is published whole when the with-block ends.

        After an error or a kill nothing of it is visible.

        Raises
        ------
        ElementExistsError
            When the volume is committed already.
        SchemaError
            When an id or attribute does not follow the specification.
        """
        target = self._volume_path(volume_id)
        content = {
            **(attributes or {}),
            "schema_version": SCHEMA_VERSION,
            "volume_id": volume_id,
            "subject_id": subject_id,
            "source": source.model_dump(mode="json") if source else None,
            "converter": dict(converter) if converter else None,
            "created_utc": now_utc(),
            "header": (header or Header()).model_dump(mode="json"),
        }
        validate("volume", content, target)
        if volume_id in self:
            raise ElementExistsError(f"{target}: the volume is committed already. Remove it to make it anew.")
        with staging(self.volumes_path) as folder:
            node = folder / NODE
            with storage_errors(target):
                node.mkdir()
            yield Volume(node, content, staged=folder)
            write_group(node, {"mri": content})
            publish(folder, target)

    def remove_volume(self, volume_id: str) -> None:
        """Remove a committed volume: it vanishes at once, its files thereafter."""
        volume = self[volume_id]
        with staging(self.volumes_path) as folder, storage_errors(volume.path):
            volume.path.rename(folder / "removed")

    def split(self, name: str = "default") -> splits.Split:
        """Read a split."""
        return splits.read_split(self, name)

    def write_split(self, split: splits.Split) -> Path:
        """Write a split."""
        return splits.write_split(self, split)

    def record_failure(self, item: str, error: BaseException | str, stage: str, *, trace: str = "") -> None:
        """Add a row to ``failures.jsonl``: what failed, at which stage, why."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if isinstance(error, BaseException):
            trace = "".join(traceback.format_exception(error))
        Failures(self.path).append(
            {"item": item, "stage": stage, "error": text, "traceback": trace, "created_utc": now_utc()}
        )

    def failures(self) -> list[dict[str, Any]]:
        """Return the recorded failures that have not been cleared."""
        return Failures(self.path).rows()

    def clear_failure(self, item: str, stage: str) -> None:
        """Remove the rows of an item at a stage, after it succeeded."""
        Failures(self.path).clear(item, stage)

    def write_evaluation(
        self,
        name: str,
        *,
        task: str,
        rows: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, Mapping[str, str]],
        config: Mapping[str, Any] | None = None,
        inputs: Sequence[Mapping[str, str]] = (),
    ) -> Path:
        """Write ``evaluations/<name>.json`` and ``.csv``; see `mri_io.store.evaluations`."""
        return evaluations.write_evaluation(
            self.path, name, task=task, rows=rows, metrics=metrics, config=config, inputs=inputs
        )

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Return all evaluations by name."""
        return evaluations.read_evaluations(self.path)

    def __repr__(self) -> str:
        """Return name and size."""
        return f"<Cohort {self.name}: {len(self)} volumes at {self.path}>"
