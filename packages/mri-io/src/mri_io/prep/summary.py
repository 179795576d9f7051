"""The outcome of a run: results, failures, and the text that commands print of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NoReturn

from mri_io.errors import StoreError

__all__ = ["PrepSummary", "TaskFailure", "counted", "failure_lines"]

MOST_NAMED = 3
_VOLUME = re.compile(r"sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?_acq-[A-Za-z0-9]+_run-\d+")
_PATH = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:/|\.{0,2})/[^\s:,;'\"]+")


@dataclass(frozen=True)
class TaskFailure:
    """An item whose function raised, after the retries."""

    item: Any
    label: str
    error: str
    traceback: str
    exception: BaseException | None = field(default=None, repr=False, compare=False)
    """What was raised, without its frames and the data in them; None where it cannot travel between processes."""

    @property
    def kind(self) -> str:
        """The message without what names the item: its label, volumes, and paths."""
        text = self.error
        for name in (self.label, PurePath(self.label).name):
            text = text.replace(name, "*") if name else text
        return _PATH.sub("*", _VOLUME.sub("*", text))

    def reraise(self) -> NoReturn:
        """Raise what the function raised; StoreError where that is not known."""
        if self.exception is None:
            raise StoreError(f"{self.label}: {self.error}")
        self.exception.add_note(self.traceback)
        raise self.exception


@dataclass
class PrepSummary:
    """Outcome of a run over many items."""

    description: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    failures: list[TaskFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no item failed."""
        return not self.failures

    def count(self, status: str) -> int:
        """Return how many results have a status, e.g. ``"skipped"``."""
        return sum(result.get("status", "done") == status for result in self.results)

    def counts(self) -> str:
        """Return how many are done, skipped and failed, in words."""
        return f"{self.count('done')} done, {self.count('skipped')} skipped, {len(self.failures)} failed"

    def __str__(self) -> str:
        """Return the line that commands print, with failures and notes below it."""
        start = f"{self.description}: " if self.description else ""
        failed = [failure_lines(self.failures)] if self.failures else []
        return "\n".join([f"{start}{self.counts()}", *failed, *(f"  {note}" for note in self.notes)])


def counted(number: int, what: str) -> str:
    """Return a number of things in words: ``1 volume``, ``2 volumes``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def failure_lines(failures: Sequence[TaskFailure]) -> str:
    """Return a line for each failure; those whose messages differ in names only share that of the first of them."""
    alike: dict[str, list[TaskFailure]] = {}
    for failure in failures:
        alike.setdefault(failure.kind, []).append(failure)
    return "\n".join(f"  failed: {_names(group)}: {group[0].error}" for group in alike.values())


def _names(group: list[TaskFailure]) -> str:
    """Return the first names of failures that are alike, and how many there are in all."""
    some = ", ".join(failure.label for failure in group[:MOST_NAMED])
    more = ", ..." if len(group) > MOST_NAMED else ""
    return some if len(group) == 1 else f"{len(group)} alike ({some}{more})"
