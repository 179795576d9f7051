"""Convert raw and image files into volumes of a cohort: in parallel, resumable, one failure never stops the rest."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

from mri_io.config import config_hash
from mri_io.convert.given_labels import given_label_element, given_label_item, given_label_memory
from mri_io.convert.numbering import CohortNumbers, SourceName, without_patient
from mri_io.convert.planning import MOST_NAMED, ConversionTask, label_note, plan_conversion
from mri_io.convert.splits import store_splits
from mri_io.errors import (
    ConfigError,
    ElementExistsError,
    FormatError,
    SchemaError,
    ShapeError,
    StoreError,
    expected_got,
)
from mri_io.formats import Found, RawElement, ReadOptions, find_sources, get_format
from mri_io.formats.base import RawVolume, SourceItem, file_sha256
from mri_io.prep import PrepSummary, TaskFailure, run_tasks
from mri_io.prep.summary import counted
from mri_io.schema.attributes import Provenance, Source
from mri_io.store.cohort import Cohort, create_cohort, open_cohort
from mri_io.store.element import Element
from mri_io.store.remote.paths import AnyPath
from mri_io.store.verification import verify
from mri_io.store.volume import Volume

__all__ = ["convert"]

STAGE = "convert"
MOST_NUMBERS = 20
"""How many run numbers are tried that other processes may take meanwhile."""


def convert(
    sources: Sequence[str | Path],
    cohort: str | AnyPath,
    *,
    labels: str | Path | None = None,
    scheduler: str = "sync",
    format: str = "auto",
    options: ReadOptions | None = None,
    replace: bool = False,
    progress: bool = True,
) -> PrepSummary:
    """Convert files and folders into a cohort, which is made when there is none.

    A volume appears whole or not at all. A volume whose source has the same SHA-256, converted with the same options
    and store version, is skipped, after converted elements that it lacks have been made again; one whose source has
    changed is made anew, but not from another file that happens to have the same name. What fails, as do sources that
    would become one volume, is recorded in ``failures.jsonl``, and the others go on.

    Parameters
    ----------
    sources
        Files, or folders to look through.
    cohort
        The cohort's folder, or its URL.
    labels
        Folder with label maps ``<stem>_<name>.nii.gz``, or of another image format, which become ``seg/<name>``.
    scheduler
        See `mri_io.prep.run_tasks`.
    format
        Name of a reader, or ``"auto"`` to find it from the content.
    options
        How files are read; every reader follows those that concern it.
    replace
        Also make those volumes anew, from changed files or options, of which results have been computed, and those that
        were made from another file of the same name. Of unchanged volumes every byte is checked, and converted
        elements that are damaged are made again; others stay.
    progress
        Report on standard error.

    Returns
    -------
    PrepSummary
        Its `notes` say what was passed over.

    Raises
    ------
    FormatError
        When a source does not exist or nothing in it can be read.
    ConfigError
        When no source follows a chosen option, `labels` is no folder, or a label map fits several sources.
    """
    folder = Path(labels) if labels is not None else None
    if folder is not None and not folder.is_dir():
        raise ConfigError(expected_got("labels", expected="a folder of label maps", got=folder))
    found = find_sources(sources, format, options, isolate=True)
    opened = create_cohort(cohort)
    tasks = plan_conversion(found.items, opened, folder.resolve() if folder else None)
    planned = {task.item.label: task for task in tasks}

    summary = run_tasks(
        _Convert(opened.path.resolve(), replace),
        tasks,
        scheduler=scheduler,
        description=STAGE,
        labels=[task.item.label for task in tasks],
        progress=progress,
        on_done=lambda label, outcome: _record(opened, planned[label], outcome),
        memory=_memory,
    )
    store_splits(opened, tasks, summary)
    summary.notes += _notes(summary, found, tasks, folder)
    return summary


def _notes(summary: PrepSummary, found: Found, tasks: Sequence[ConversionTask], labels: Path | None) -> Iterator[str]:
    """Yield what is to be said of a conversion beside its failures."""
    again = [result for result in summary.results if "elements" in result]
    yield from (f"made again in {result['volume']}: {', '.join(result['elements'])}" for result in again)
    if found.passed_over:
        some = ", ".join(path.name for path in found.passed_over[:MOST_NAMED])
        more = ", ..." if len(found.passed_over) > MOST_NAMED else ""
        files = counted(len(found.passed_over), "file")
        yield f"passed over, of no known format: {files} ({some}{more})"
    yield from (f"left out, to be converted by itself: {folder}" for folder in found.left_out)
    yield from (f"left out, a cohort: {folder}" for folder in found.cohorts)
    if labels is not None and (note := label_note(labels, tasks)):
        yield note


def _record(cohort: Cohort, task: ConversionTask, outcome: dict[str, Any] | TaskFailure) -> None:
    """Keep the record of failures: clear the rows that a volume has mended, or add one."""
    label = task.item.label
    own = {label, without_patient(label, task.identity)}
    mended = own if isinstance(outcome, TaskFailure) else task.recorded_as()
    for name in mended & {row.get("item") for row in cohort.failures() if row.get("stage") == STAGE}:
        cohort.clear_failure(name, STAGE)
    if isinstance(outcome, TaskFailure):
        texts = (label, outcome.error, outcome.traceback)
        item, error, trace = (without_patient(text, task.identity) for text in texts)
        cohort.record_failure(item, error, STAGE, trace=trace)


def _memory(task: ConversionTask) -> int:
    """Return the most bytes that converting a volume holds: those of its reader, or of the largest label map."""
    if task.problem:
        return 0
    labels = [given_label_memory(label) for label in task.labels]
    return max([get_format(task.item.format, isolate=True).memory(task.item), *labels])


@dataclass(frozen=True)
class _Job:
    """What a volume is made of; `sha256` waits until the files have been read through."""

    task: ConversionTask
    source: SourceName
    labels: tuple[SourceItem, ...]
    sha256: Callable[[], str]


class _Convert:
    """Convert one volume; runs in a worker."""

    def __init__(self, cohort: AnyPath, replace: bool) -> None:
        self.cohort, self.replace = cohort, replace

    def __call__(self, task: ConversionTask) -> dict[str, Any]:
        if task.problem:
            raise FormatError(task.problem)
        if task.source is None:
            get_format(task.item.format, isolate=True).identify(task.item)  # raises what planning met
            raise FormatError(f"{task.item.path}: could not be looked at when the work was planned. Run it again.")
        labels = tuple(given_label_item(label) for label in task.labels)
        files = (*task.item.files, *(file for label in labels for file in label.files))
        stop = Event()
        # The source is read for its hash and for its content: at the same time, unless the hash decides what to do.
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(file_sha256, files, stop)
            try:
                return self._convert(open_cohort(self.cohort), _Job(task, task.source, labels, digest.result))
            except BaseException:
                stop.set()  # else leaving the block would wait for the hash
                raise

    def _convert(self, opened: Cohort, job: _Job) -> dict[str, Any]:
        """Make the volume unless it is there."""
        planned = job.task.volume_id
        there = planned in opened and job.source.made(stored := opened[planned])
        if there and self._is_current(stored, job) and not self._wanting(stored, job):
            return {"status": "skipped", "volume": planned}
        # Another process that converts the same file may have planned another number, or pseudonym, for it.
        with opened.exclusive(job.source.work):
            return self._convert_alone(opened, job)

    def _convert_alone(self, opened: Cohort, job: _Job) -> dict[str, Any]:
        """Make the volume unless it is there now, or another process has taken its number since that was planned."""
        for _ in range(MOST_NUMBERS):
            numbers = CohortNumbers(opened, job.source.names())
            known = next((name for name in job.source.names() if numbers.is_place(name)), job.source)
            job, volume_id = replace(job, source=known), numbers.find(known)
            there = volume_id is not None
            if volume_id is None:
                volume_id = job.task.volume_id if job.task.volume_id not in opened else numbers.give(known)
            elif self._is_current(stored := opened[volume_id], job):
                return self._mend(opened, stored, job)
            try:
                self._make(opened, volume_id, job, replace=there)
            except ElementExistsError:
                if there or volume_id not in opened:
                    raise
                continue  # another process was quicker: see what it made
            return {"status": "done", "volume": volume_id}
        raise StoreError(
            f"{job.task.item.path}: other processes took {MOST_NUMBERS} run numbers of {job.source.start}N while this "
            "file was converted. Run the command again."
        )

    def _is_current(self, stored: Volume, job: _Job) -> bool:
        """Whether a volume was made from these bytes and options; StoreError where it must not be made anew."""
        task, source = job.task, job.source
        former = stored.attributes.get("converter") or {}
        version_then = former.get("schema_version", stored.attributes["schema_version"])  # of a migrated volume
        same = former.get("config_hash") == config_hash(task.settings(version_then))
        if stored.source is not None and stored.source.sha256 == job.sha256() and same:
            return True
        if not self.replace:
            if former.get("source_path_sha256", source.place) != source.place:
                raise StoreError(
                    f"{task.item.path}: {stored.id} was converted from another file of this name, in another folder "
                    f"({source.uri}), and would be replaced by it. If it is another scan, give it a name of its "
                    "own (sub-X_ses-Y_...) or another cohort; if the file has moved: --replace"
                )
            self._check_replaceable(stored, job)
        return False

    def _wanting(self, stored: Volume, job: _Job) -> set[str]:
        """Return what is missing of what was converted; with ``--replace`` also what is damaged.

        Damage to what no conversion made, and so cannot make again, is left. An empty path is the volume itself.
        """
        made = (stored.attributes.get("converter") or {}).get("elements")
        if made is None:  # converted by an earlier release
            made = _paths(self._read(job), job) if self.replace else []
        wanting = {path for path in made if path not in stored}
        if self.replace:
            for damaged in {problem.element for problem in verify(stored).problems}:
                if damaged in made:
                    wanting.add(damaged)
                elif not damaged or any(path.startswith(f"{damaged}/") for path in made):
                    wanting.add("")  # the root, or a group of elements
        return wanting

    def _mend(self, opened: Cohort, stored: Volume, job: _Job) -> dict[str, Any]:
        """Make again what a volume of the same source and options wants: nothing, some elements, or all of it."""
        wanting = self._wanting(stored, job)
        if not wanting:
            return {"status": "skipped", "volume": stored.id}
        raw = self._read(job)
        unknown = wanting - set(_paths(raw, job))  # the volume itself among them
        if unknown and self.replace:
            self._make(opened, stored.id, job, replace=True)
            return {"status": "done", "volume": stored.id}
        if unknown:
            raise StoreError(
                f"{job.task.item.path}: {stored.id} lacks {', '.join(sorted(unknown))}, which this release does not "
                "make of the file. To convert the volume anew: --replace"
            )
        _write_all(stored, raw, job, wanting)
        return {"status": "done", "volume": stored.id, "elements": sorted(wanting)}

    def _read(self, job: _Job) -> RawVolume:
        item = job.task.item
        return get_format(item.format, isolate=True).read(item)

    def _make(self, opened: Cohort, volume_id: str, job: _Job, *, replace: bool) -> None:
        """Read the source and write the volume."""
        item, source, raw = job.task.item, job.source, self._read(job)
        converter = {
            "package": "mri-io",
            "version": version("mri-io"),
            "config_hash": config_hash(job.task.settings()),
            "source_path_sha256": source.place,
            "elements": _paths(raw, job),
        }
        with opened.create_volume(
            volume_id,
            subject_id=source.identity.subject,
            source=lambda: Source(uri=source.uri, sha256=job.sha256(), format=item.format),
            header=raw.header,
            converter=converter,
            attributes=raw.attributes,
            replace=replace,
        ) as volume:
            _write_all(volume, raw, job, set(_paths(raw, job)))

    def _check_replaceable(self, stored: Volume, job: _Job) -> None:
        """Raise StoreError when making a volume anew would throw away results, or labels that are not given now."""
        task = job.task
        brought = get_format(task.item.format).brings_labels
        given = {f"seg/{name}" for name in task.settings()["labels"]}
        lost = [
            name
            for name, element in stored.elements().items()
            if not str(element.provenance.get("method")).startswith("convert ")
            or (name in _given_labels(element) - given and not brought)
        ]
        if lost:
            raise StoreError(
                f"{task.item.path}: {stored.id} was converted {_differently(stored, job)}, "
                f"and converting again would discard {', '.join(lost)}. To do so: --replace"
            )


def _differently(stored: Volume, job: _Job) -> str:
    """Return in what a conversion then differs from one now: options, or the content of the files."""
    made = [element.provenance for element in stored.elements().values()]
    configs = (found.get("config", {}) for found in made if str(found.get("method")).startswith("convert "))
    then: dict[str, Any] = next(configs, {})
    now = job.task.settings(then.get("schema_version", "")) if then else {}
    differing = [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
    texts = [
        f"{'--labels' if key == 'labels' else key} {_in_words(then.get(key))} then, {_in_words(now.get(key))} now"
        for key in differing
    ]
    options = f"with other options ({'; '.join(texts)})" if texts else ""
    # The hash is of the label maps, too: with others it does not tell whether the source is the same.
    same = "labels" in differing or (stored.source is not None and stored.source.sha256 == job.sha256())
    return " and ".join(filter(None, ["" if same else "from other content of its files", options])) or "otherwise"


def _in_words(value: Any) -> str:
    """Return an option's value; of label maps the names."""
    return (", ".join(value) if isinstance(value, dict) else str(value or "")) or "none"


def _given_labels(element: Element) -> set[str]:
    """Return the label maps that were given beside the source of a converted element."""
    return {f"seg/{name}" for name in element.provenance.get("config", {}).get("labels", {})}


def _paths(raw: RawVolume, job: _Job) -> list[str]:
    """Return the paths of the elements that a source, and the label maps given beside it, become."""
    return [element.path for element in raw.elements] + [f"seg/{label.name}" for label in job.task.labels]


def _write_all(volume: Volume, raw: RawVolume, job: _Job, chosen: set[str]) -> None:
    """Write those elements that are chosen by their paths; one that is there is damaged, and replaced."""
    made = Provenance.of("mri-io", f"convert {job.task.item.format}", job.task.settings())
    for element in raw.elements:
        if element.path in chosen:
            _write(volume, element, made, job.task.item.path)
    for label, item in zip(job.task.labels, job.labels, strict=True):
        if f"seg/{label.name}" in chosen:
            _write(volume, given_label_element(item, raw), made, item.path)


def _write(volume: Volume, element: RawElement, made: Provenance, path: Path) -> None:
    try:
        with volume.writer(
            element.path,
            shape=element.shape,
            dtype=element.dtype,
            provenance=made,
            dims=element.dims,
            affine=element.affine,
            labels=element.labels,
            attributes=element.attributes,
            replace=element.path in volume,
        ) as writer:
            for block in element.blocks():
                writer.append(block)
    except (ShapeError, FormatError, SchemaError) as error:
        # The store names the place in the cohort; the user has to mend the file.
        text = str(error).rpartition(f"{element.path}: ")[2].removeprefix(f"{path}: ")
        raise type(error)(f"{path}: {element.path}: {text}") from error
