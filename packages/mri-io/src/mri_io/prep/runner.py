"""Run one function on many items: results are small mappings, failures are records, nothing aborts the rest."""

import logging
import re
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mri_io.errors import ConfigError, StoreError, expected_got
from mri_io.prep.cluster import dask_client
from mri_io.prep.progress import progress_report

__all__ = ["PrepSummary", "TaskFailure", "run_tasks"]

_log = logging.getLogger(__name__)

KILLED = (
    "every worker that took it was killed, most likely for want of memory. Use fewer workers (--scheduler local:1) "
    "or a machine with more memory."
)

Task = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class TaskFailure:
    """An item whose function raised, after the retries."""

    item: Any
    label: str
    error: str
    traceback: str


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

    def __str__(self) -> str:
        """Return the line that commands print, with failures and notes below it."""
        start = f"{self.description}: " if self.description else ""
        line = f"{start}{self.count('done')} done, {self.count('skipped')} skipped, {len(self.failures)} failed"
        failed = (f"  failed: {failure.label}: {failure.error}" for failure in self.failures)
        return "\n".join([line, *failed, *(f"  {note}" for note in self.notes)])


def run_tasks(
    function: Task,
    items: Sequence[Any],
    *,
    scheduler: str = "sync",
    retries: int = 2,
    description: str = "",
    labels: Sequence[str] | None = None,
    progress: bool = True,
    on_done: Callable[[str, dict[str, Any] | TaskFailure], None] | None = None,
) -> PrepSummary:
    """Call ``function(item)`` for every item.

    Parameters
    ----------
    function
        Returns a small mapping; ``{"status": "skipped"}`` marks what was done before. For the dask schedulers it must
        be picklable, idempotent, and write its data to the store itself.
    items
        Picklable for the dask schedulers.
    scheduler
        ``"sync"``: one after another in this process. ``"local"`` or ``"local:N"``: N dask workers on this machine,
        by default one per core. ``"tcp://host:port"``: a running dask scheduler.
    retries
        How often dask tries an item again whose function raised an `OSError`. An item whose worker dies is tried
        three times more, and then, unless this is zero, as often alone.
    description
        Shown beside the progress.
    labels
        Names of the items for messages, by default ``str(item)``.
    progress
        Report on standard error: a bar on a terminal, a line now and then elsewhere.
    on_done
        Called with the label and the outcome of each item as it ends.

    Returns
    -------
    PrepSummary
        Results and failures in the order of `items`.

    Raises
    ------
    ConfigError
        For an unknown scheduler.
    StoreError
        When a dask scheduler cannot be reached, has no workers, or ends before the work is done.
    """
    names = list(labels) if labels is not None else [str(item) for item in items]
    check_scheduler(scheduler)
    outcomes: dict[int, dict[str, Any] | TaskFailure] = {}
    source = _run_here if scheduler == "sync" else _run_on_dask
    with progress_report(len(items), description, shown=progress) as advance:
        for position, ended in source(function, items, scheduler, retries):
            outcome: dict[str, Any] | TaskFailure
            if isinstance(ended, tuple):
                outcome = TaskFailure(items[position], names[position], error=ended[0], traceback=ended[1])
            else:
                outcome = ended
            outcomes[position] = outcome
            if on_done is not None:
                on_done(names[position], outcome)
            advance(names[position], isinstance(outcome, TaskFailure))
    summary = PrepSummary(description)
    for _, final in sorted(outcomes.items()):
        if isinstance(final, TaskFailure):
            summary.failures.append(final)
        else:
            summary.results.append(final)
    return summary


def check_scheduler(scheduler: str) -> None:
    """Raise ConfigError unless the scheduler's name is known."""
    if not re.fullmatch(r"sync|local(:[1-9][0-9]*)?|(tcp|tls)://\S+", scheduler):
        raise ConfigError(
            expected_got("scheduler", expected="sync, local, local:N or tcp://host:port", got=repr(scheduler))
        )


Outcome = tuple[int, dict[str, Any] | tuple[str, str]]


def _describe(error: BaseException) -> tuple[str, str]:
    text = str(error) or type(error).__name__
    known = type(error).__module__.startswith("mri_")
    return (text if known else f"{type(error).__name__}: {text}"), "".join(traceback.format_exception(error))


def _run_here(function: Task, items: Sequence[Any], scheduler: str, retries: int) -> Iterator[Outcome]:
    for position, item in enumerate(items):
        try:
            yield position, function(item)
        except Exception as error:
            _log.debug("item %s failed", item, exc_info=True)
            yield position, _describe(error)


@lru_cache(maxsize=4)
def _unpickled(function: bytes) -> Task:
    """Return the same object for every item that a worker does, so that it may keep what it loads, e.g. a network."""
    from distributed.protocol import pickle

    task: Task = pickle.loads(function)
    return task


def _guarded(function: bytes, item: Any) -> dict[str, Any] | tuple[str, str]:
    """Run in a worker. What the packages raise on purpose is a result: trying again would not mend it."""
    try:
        return _unpickled(function)(item)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise
        return _describe(error)


def _run_on_dask(function: Task, items: Sequence[Any], scheduler: str, retries: int) -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed
    from distributed.protocol import pickle

    if not items:
        return
    # It travels with every item: data scattered to workers is lost with the last of them that dies.
    packed = pickle.dumps(function)
    with dask_client(scheduler, len(items)) as client:

        def submit(positions: Sequence[int]) -> dict[Any, int]:
            run = uuid.uuid4().hex  # a key that an earlier run used on a shared scheduler would give its old result
            options = {"retries": retries, "pure": False}
            return {client.submit(_guarded, packed, items[p], key=f"item-{p}-{run}", **options): p for p in positions}

        def outcomes(futures: dict[Any, int]) -> Iterator[tuple[int, Any]]:
            try:
                for future in as_completed(futures, loop=client.loop):
                    if future.cancelled():
                        raise StoreError(
                            f"{scheduler}: the dask scheduler ended or forgot the work. Run the command again: it "
                            "continues where it stopped."
                        )
                    error = future.exception()
                    yield futures[future], future.result() if error is None else error
            except BaseException:
                client.cancel(list(futures), force=True)
                raise

        killed = []
        for position, ended in outcomes(submit(range(len(items)))):
            if isinstance(ended, KilledWorker) and retries:
                killed.append(position)
            else:
                yield position, _describe(ended) if isinstance(ended, BaseException) else ended
        for position in killed:  # alone: what killed the workers may have been another item in their queues
            ((_, ended),) = outcomes(submit([position]))
            if isinstance(ended, KilledWorker):
                yield position, (KILLED, str(ended))
            else:
                yield position, _describe(ended) if isinstance(ended, BaseException) else ended
