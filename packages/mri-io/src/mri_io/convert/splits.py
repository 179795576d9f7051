"""Splits that data sets bring with them: gathered from what readers say of each volume, stored by subject."""

from collections.abc import Mapping, Sequence
from typing import get_args

from mri_io.convert.planning import ConversionTask
from mri_io.errors import ConfigError, ElementNotFoundError, MriError, expected_got
from mri_io.formats import get_format
from mri_io.formats.base import SourceItem
from mri_io.prep import PrepSummary, TaskFailure
from mri_io.store.cohort import Cohort
from mri_io.store.splits import Split
from mri_io.types import Part

__all__ = ["store_splits"]

PARTS: tuple[Part, ...] = get_args(Part)
MOST_NAMED = 5


def store_splits(cohort: Cohort, tasks: Sequence[ConversionTask], summary: PrepSummary) -> None:
    """Write the splits that data sets define for their volumes, those that a cohort does not have yet.

    A split of which a volume failed is not written, as its parts would change; nor is one over another of its name.
    The summary's notes say so. One that cannot be a split counts as a failure of the run.

    Parameters
    ----------
    cohort
        Where the volumes were converted to.
    tasks
        All that were to be converted.
    summary
        How that went.
    """
    failed = {failure.label for failure in summary.failures}
    errors: dict[str, str] = {}
    members: dict[str, list[tuple[ConversionTask, str]]] = {}
    for task in tasks:
        for name, part in _split_of(task.item, errors).items():
            members.setdefault(name, []).append((task, part))
    for name, found in members.items():
        missing = sum(task.item.label in failed for task, _ in found)
        if missing:
            summary.notes.append(
                f"split {name!r} is not written before the {missing} of its volumes that failed are in"
            )
            continue
        try:
            summary.notes += _store(cohort, _split(name, found))
        except MriError as error:
            errors[name] = str(error)
        cohort.clear_failure(f"splits/{name}", summary.description)
    for name, text in errors.items():
        cohort.record_failure(f"splits/{name}", text, summary.description)
        summary.failures.append(TaskFailure(None, f"splits/{name}", text, ""))


def _split_of(item: SourceItem, errors: dict[str, str]) -> Mapping[str, str]:
    if item.problem:
        return {}
    try:
        return get_format(item.format).split_of(item) or {}
    except (MriError, OSError) as error:
        errors[item.format] = str(error)
        return {}


def _split(name: str, members: Sequence[tuple[ConversionTask, str]]) -> Split:
    """Return a split of the subjects; ConfigError when one is in two parts, or a part has another name than ours."""
    found: dict[str, set[str]] = {part: set() for part in PARTS}
    for task, part in members:
        if part not in found:
            raise ConfigError(expected_got("part", expected=PARTS, got=repr(part), where=task.item.path))
        if task.identity is not None:
            found[part].add(task.identity.subject)
    subjects = sorted(set().union(*found.values()))
    twice = {subject: [part for part in PARTS if subject in found[part]] for subject in subjects}
    wrong = [f"{subject} in {' and '.join(inside)}" for subject, inside in twice.items() if len(inside) > 1]
    if wrong:
        raise ConfigError(
            expected_got(
                f"split {name!r} of the data set",
                expected="every subject in one part",
                got="; ".join(wrong[:MOST_NAMED])
                + (f" and {len(wrong) - MOST_NAMED} more" * (len(wrong) > MOST_NAMED)),
                fix="The volumes are converted; make a split of your own: mri-cli split",
            )
        )
    train, val, test = (tuple(sorted(found[part])) for part in PARTS)
    return Split(name=name, train=train, val=val, test=test)


def _store(cohort: Cohort, split: Split) -> list[str]:
    try:
        there = cohort.split(split.name)
    except ElementNotFoundError:
        cohort.write_split(split)
        return []
    if there.hash == split.hash:
        return []
    sizes = ", ".join(f"{len(there.subjects(part))} {part}" for part in PARTS)
    return [
        f"split {split.name!r} of the cohort ({sizes}) has other subjects than the files converted now and stays as it "
        f"is. For one of them all, remove splits/{split.name}.json and convert all sources in one command"
    ]
