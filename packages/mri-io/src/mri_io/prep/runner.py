"""Run one function on many items: results are small mappings, failures are records, nothing aborts the rest."""

import logging
import sys
import traceback
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

from mri_io.errors import StoreError
from mri_io.prep.cluster import check_scheduler, dask_client, workers_wanted
from mri_io.prep.memory import PROCESS_BYTES, Memory, MemoryPlan, free_memory, plan_memory
from mri_io.prep.progress import progress_report
from mri_io.prep.summary import PrepSummary, TaskFailure

__all__ = ["AGAIN", "NOTHING_KEPT", "PrepSummary", "TaskFailure", "run_tasks"]

_log = logging.getLogger(__name__)

KILLED = (
    "every worker that took it was killed, most likely for want of memory. Use fewer workers (--scheduler local:1) "
    "or a machine with more memory."
)
AGAIN = "run the same command again: it goes on with the rest"
NOTHING_KEPT = "nothing of it is kept"
"""Of measurements, whose results are gathered in the process that runs them."""

Task = Callable[[Any], dict[str, Any]]
Failed = tuple[str, str, BaseException | None]
"""Message, traceback, and what was raised."""
Outcome = tuple[int, dict[str, Any] | Failed]
Tell = Callable[[str], None]


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
    memory: Memory | None = None,
    again: str = AGAIN,
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
        by default one per core. ``"slurm"`` or ``"slurm:N"``: at most N jobs of SLURM, see
        `mri_io.prep.slurm.slurm_cluster`. ``"tcp://host:port"``: a running dask scheduler.
    retries
        How often dask tries an item again whose function raised an `OSError`. An item whose worker dies is tried
        three times more, and then, unless this is zero, as often alone.
    description
        Shown beside the progress.
    labels
        Names of the items for messages, by default ``str(item)``.
    progress
        Report on standard error: what memory is needed, a bar on a terminal or a line now and then elsewhere.
    on_done
        Called with the label and the outcome of each item as it ends. What it raises ends the run.
    memory
        Bytes that a task holds at most beside its process, or a function of the item that returns them. No more local
        workers are started than fit into what is free, and jobs ask for as much.
    again
        What becomes of the work that is done, for whoever interrupts it.

    Returns
    -------
    PrepSummary
        Results and failures in the order of `items`.

    Raises
    ------
    ConfigError
        For an unknown scheduler, or ``slurm`` where there is none.
    StoreError
        When a dask scheduler cannot be reached, has no workers, or ends before the work is done.
    KeyboardInterrupt
        When interrupted, after saying what was done.
    """
    names = list(labels) if labels is not None else [str(item) for item in items]
    check_scheduler(scheduler)
    tell = _teller(description, shown=progress)
    outcomes: dict[int, dict[str, Any] | TaskFailure] = {}
    plan = _planned(memory, items, scheduler, tell)
    try:
        with (
            progress_report(len(items), description, shown=progress) as advance,
            closing(_run(function, items, scheduler, retries, plan, tell)) as ends,
        ):
            for position, ended in ends:
                outcome = TaskFailure(items[position], names[position], *ended) if isinstance(ended, tuple) else ended
                outcomes[position] = outcome
                if on_done is not None:
                    on_done(names[position], outcome)
                advance(names[position], isinstance(outcome, TaskFailure))
    except KeyboardInterrupt:
        done = _summary(description, outcomes)
        tell(
            f"interrupted after {len(outcomes)} of {len(items)} ({done.counts()}). Nothing half-written is visible; "
            f"{again}."
        )
        raise
    return _summary(description, outcomes)


def _summary(description: str, outcomes: dict[int, dict[str, Any] | TaskFailure]) -> PrepSummary:
    ordered = [outcome for _, outcome in sorted(outcomes.items())]
    failures = [outcome for outcome in ordered if isinstance(outcome, TaskFailure)]
    return PrepSummary(description, [o for o in ordered if not isinstance(o, TaskFailure)], failures)


def _teller(description: str, *, shown: bool) -> Tell:
    """Return a function that writes a line for the user on standard error, or logs it."""

    def tell(text: str) -> None:
        line = f"{description}: {text}" if description else text
        if shown:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        else:
            _log.info("%s", line)

    return tell


def _planned(memory: Memory | None, items: Sequence[Any], scheduler: str, tell: Tell) -> MemoryPlan | None:
    """Decide how many workers there are, and say what they need; None where the work does not state it."""
    if memory is None or not items:
        return None
    needs = [memory if isinstance(memory, int) else _need(memory, item) for item in items]
    own = scheduler == "sync" or scheduler.startswith("local")
    plan = plan_memory(needs, workers_wanted(scheduler, len(items)) or 1, free_memory() if own else None)
    tell(plan.describe(len(items)))
    if not plan.fits:
        tell(plan.warning())
    return plan


def _need(memory: Callable[[Any], int], item: Any) -> int:
    try:
        return int(memory(item))
    except Exception:  # the task meets the error again, and it becomes a failure of this item alone
        _log.debug("no estimate of the memory for %s", item, exc_info=True)
        return 0


def _run(
    function: Task, items: Sequence[Any], scheduler: str, retries: int, plan: MemoryPlan | None, tell: Tell
) -> Generator[Outcome, None, None]:
    if scheduler == "sync" or not items:
        yield from _run_here(function, items)
        return
    workers = plan.workers if plan is not None else workers_wanted(scheduler, len(items))
    need = None if plan is None else plan.largest + PROCESS_BYTES
    with dask_client(scheduler, workers, need, tell) as client:
        yield from _run_on_dask(client, function, items, retries, scheduler)


def _describe(error: BaseException) -> Failed:
    text = str(error) or type(error).__name__
    known = type(error).__module__.startswith("mri_")
    trace = "".join(traceback.format_exception(error))
    error.__traceback__ = error.__cause__ = error.__context__ = None  # they keep the frames, and the data in them
    return (text if known else f"{type(error).__name__}: {text}"), trace, error


def _run_here(function: Task, items: Sequence[Any]) -> Iterator[Outcome]:
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


def _guarded(function: bytes, item: Any) -> dict[str, Any] | Failed:
    """Run in a worker. What the packages raise on purpose is a result: trying again would not mend it."""
    from distributed.protocol import pickle

    try:
        return _unpickled(function)(item)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            raise
        text, trace, _ = _describe(error)
        try:
            return text, trace, pickle.loads(pickle.dumps(error))
        except Exception:  # it cannot be made again from what it holds
            return text, trace, None


def _run_on_dask(client: Any, function: Task, items: Sequence[Any], retries: int, scheduler: str) -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed
    from distributed.protocol import pickle

    # It travels with every item: data scattered to workers is lost with the last of them that dies.
    packed = pickle.dumps(function)

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
            yield position, (KILLED, str(ended), None)
        else:
            yield position, _describe(ended) if isinstance(ended, BaseException) else ended
