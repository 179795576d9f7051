"""Writers of a cohort that die, stop or race, for tests of crashes; run as a module it forks them, see `ForkServer`.

The arguments of an operation are ``<cohort> <value> <event> <number> <lease>``. Before the call of that number that
changes something, in the file system or at the server of an object store (0: never), the process kills itself (event
``kill``) or stops (``stop``, until it gets SIGCONT). With the event ``compute`` the system ends it, by SIGPROF and with
no chance to tidy up, when it has computed for that number of seconds, however long that takes on a busy machine. The
exit status says how it went.
"""

import io
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import ElementExistsError, StoreError
from mri_io.schema import Provenance
from mri_io.store import Cohort, commit, create_cohort, open_cohort, shards
from mri_io.store.remote import claims
from mri_io.store.remote.object_store import ObjectStoreBackend
from mri_io.testing.forks import ForkServer, serve

__all__ = [
    "BOTH",
    "EXISTS",
    "ID",
    "NEW",
    "OLD",
    "OPERATIONS",
    "REFUSED",
    "REPLACED",
    "WITHOUT_A",
    "WriterServer",
    "create",
    "data",
    "values",
    "write",
]

ID = "sub-01_acq-t1_run-1"
SHAPE = (4, 16, 16)
EXISTS, REFUSED = 17, 28
"""Exit statuses of a writer that was refused: because there is one already, and for another reason."""
OLD, NEW = 1, 2
BOTH = {"volume": OLD, "recon/a": OLD, "recon/b": OLD}
REPLACED = {"volume": NEW, "recon/a": NEW, "recon/b": NEW}
WITHOUT_A = {"volume": OLD, "recon/b": OLD}
"""What `values` finds."""


def data(value: int) -> np.ndarray:
    """Return what the writer with this number writes."""
    return np.random.default_rng(value).standard_normal(SHAPE).astype(np.float32)


def values(cohort: Cohort) -> dict[str, int]:
    """Return which writer made each element, after comparing its data with what that writer writes."""
    found = {}
    for volume in cohort.volumes():
        found["volume"] = int(volume.attributes["writer"])
        for path, element in volume.elements().items():
            assert element.provenance is not None
            found[path] = int(element.provenance["seed"])
            np.testing.assert_array_equal(element.numpy(), data(found[path]))
    return found


def write(cohort: Cohort, value: int, *, name: str = "a", replace: bool = False) -> None:
    """Write one element."""
    cohort[ID].write(f"recon/{name}", data(value), provenance=_made(value), replace=replace)


def create(cohort: Cohort, value: int, *, replace: bool = False, volume_id: str = ID) -> None:
    """Make a volume with the elements a and b."""
    with cohort.create_volume(volume_id, subject_id="sub-01", attributes={"writer": value}, replace=replace) as volume:
        for name in ("a", "b"):
            volume.write(f"recon/{name}", data(value), provenance=_made(value))


def _made(value: int) -> Provenance:
    return Provenance(method="writer", package="test", version="0", seed=value)


def _without_exchange(cohort: Cohort, value: int) -> None:
    """Replace an element where folders cannot change places."""
    commit._exchange = lambda *_: False
    write(cohort, value, replace=True)


def _with_limit(cohort: Cohort, value: int) -> None:
    """Write where files may have no more bytes than `value`."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (value, before[1]))
    try:
        write(cohort, value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _endless(cohort: Cohort, value: int) -> None:
    """Write, replace and create for as long as it lives."""
    for number in range(10**6):
        write(cohort, value + number, name="ab"[number % 2], replace=True)
        create(cohort, value + number, replace=True)


def _rows(cohort: Cohort, value: int) -> None:
    """Make a volume of its own, and record failures beside."""
    for number in range(5):
        cohort.record_failure(f"{value}-{number}", "broken", "test")
        cohort.record_failure(f"cleared-{value}-{number}", "broken", "test")
        cohort.clear_failure(f"cleared-{value}-{number}")
    create(cohort, value, volume_id=f"sub-01_acq-t1_run-{value}")


OPERATIONS: dict[str, Callable[[Cohort, int], None]] = {
    "write": write,
    "replace": lambda cohort, value: write(cohort, value, replace=True),
    "write-other": lambda cohort, value: write(cohort, value, name=f"x{value}"),
    "create": create,
    "replace-volume": lambda cohort, value: create(cohort, value, replace=True),
    "without-exchange": _without_exchange,
    "remove": lambda cohort, value: cohort[ID].remove("recon/a"),
    "remove-volume": lambda cohort, value: cohort.remove_volume(ID),
    "with-limit": _with_limit,
    "endless": _endless,
    "rows": _rows,
}


class WriterServer(ForkServer):
    """Forks writers; the arguments of an operation are those that it takes as a module, and have defaults."""

    def __init__(self, errors: Path) -> None:
        super().__init__("mri_io.testing.writers", errors)

    def start(self, operation: str, *arguments: object) -> int:
        """Let writers begin: an operation, the cohort's place, a value, an event, the number of a call and a lease."""
        defaults: tuple[object, ...] = ("", 0, claims.LEASE_S)
        return super().start(operation, *arguments, *defaults[len(arguments) - 2 :])


def _meet_at(number: int, event: str) -> Callable[[Any, Callable[..., bool]], Any]:
    """Return a decorator whose functions together let the process die, or stop, before the given call that counts."""
    left = number

    def meeting(function: Any, counts: Callable[..., bool] = lambda *_: True) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= counts(*args)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL if event == "kill" else signal.SIGSTOP)
                time.sleep(0.02)  # a stopped process stops here at the latest
                left = -1
            return function(*args, **kwargs)

        return call

    return meeting


def _arm(number: int, event: str, *, remote: bool) -> None:
    meeting: Any = _meet_at(number, event)
    if remote:
        for name in ("write", "delete"):
            setattr(ObjectStoreBackend, name, meeting(getattr(ObjectStoreBackend, name)))
        return
    io.open = meeting(io.open, lambda *args: bool(set("wxa+") & set(str(args[1] if len(args) > 1 else "r"))))
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        setattr(os, name, meeting(getattr(os, name)))
    commit._exchange = meeting(commit._exchange)
    shards._write = meeting(shards._write)


def _prepare(
    among: int, operation: str, place: str, value: str, event: str, number: str, lease: str
) -> Callable[[], int]:
    claims.LEASE_S = float(lease)
    cohort = open_cohort(place)

    def work() -> int:
        if event == "compute":
            signal.setitimer(signal.ITIMER_PROF, float(number))
        elif int(number):
            _arm(int(number), event, remote="://" in place)
        try:
            OPERATIONS[operation](cohort, int(value) + among)
        except ElementExistsError:
            return EXISTS
        except StoreError as error:
            sys.stderr.write(f"{error}\n")
            return REFUSED
        return 0

    return work


def _main() -> None:
    setattr(os, "fsync", lambda descriptor: None)  # noqa: B010  (what was written outlives a killed process)
    with tempfile.TemporaryDirectory() as folder:
        create(create_cohort(Path(folder, "c")), 0)  # imports what the children would import one by one
    with suppress(ImportError):
        import obstore  # noqa: F401  (before the children are forked; its threads begin with the first request)
    serve(_prepare)


if __name__ == "__main__":
    _main()
