"""A process that writes to a cohort by URL, and dies or stops at a chosen request; run as a script by the tests.

Arguments: ``<url> <operation> <value> <event> <number> <lease>``. Before the request of that number that changes
something (0: never) the process kills itself (event ``kill``) or stops (``stop``, until it gets SIGCONT). The exit
status says how it went. The script also serves: with ``-`` in place of arguments, every line of input is such a list,
separated by tabs, and a child is forked for it; an operation ``a+b`` races children of both. It answers with a line of
their process numbers, and with one of their exit statuses when they have ended.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import obstore

from mri_io.errors import ElementExistsError, StoreError
from mri_io.schema import Provenance
from mri_io.store import create_cohort, open_cohort
from mri_io.store.remote import claims
from mri_io.store.remote.object_store import ObjectStoreBackend

ID = "sub-01_acq-t1_run-1"
SHAPE = (4, 16, 16)
EXISTS, REFUSED = 17, 28


def data(value: int) -> np.ndarray:
    """Return what the writer with this number writes."""
    return np.random.default_rng(value).standard_normal(SHAPE).astype(np.float32)


def made(value: int) -> Provenance:
    """Return where it says that it comes from."""
    return Provenance(method="writer", package="test", version="0", seed=value)


def write(cohort, value, *, name="a", replace=False):
    cohort[ID].write(f"recon/{name}", data(value), provenance=made(value), replace=replace)


def create(cohort, value, *, replace=False, volume_id=ID):
    with cohort.create_volume(volume_id, subject_id="sub-01", attributes={"writer": value}, replace=replace) as volume:
        for name in ("a", "b"):
            volume.write(f"recon/{name}", data(value), provenance=made(value))


def rows(cohort, value):
    """Make a volume of its own, and record failures beside."""
    for number in range(5):
        cohort.record_failure(f"{value}-{number}", "broken", "test")
        cohort.record_failure(f"cleared-{value}-{number}", "broken", "test")
        cohort.clear_failure(f"cleared-{value}-{number}")
    create(cohort, value, volume_id=f"sub-01_acq-t1_run-{value}")


OPERATIONS = {
    "write": write,
    "write-other": lambda cohort, value: write(cohort, value, name=f"x{value}"),
    "replace": lambda cohort, value: write(cohort, value, replace=True),
    "create": create,
    "replace-volume": lambda cohort, value: create(cohort, value, replace=True),
    "remove": lambda cohort, value: cohort[ID].remove("recon/a"),
    "remove-volume": lambda cohort, value: cohort.remove_volume(ID),
    "rows": rows,
}


def at_request(number: int, event: str) -> None:
    """Let the process die, or stop, before the given request that changes something."""
    left = number

    def meeting(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL if event == "kill" else signal.SIGSTOP)
                time.sleep(0.02)  # a stopped process stops here at the latest
            return function(*args, **kwargs)

        return call

    for name in ("write", "delete"):
        setattr(ObjectStoreBackend, name, meeting(getattr(ObjectStoreBackend, name)))


def work(url: str, operation: str, value: str, event: str, number: str, lease: str) -> int:
    """Do one operation and return the exit status."""
    claims.LEASE_S = float(lease)
    cohort = open_cohort(url)
    if int(number):
        at_request(int(number), event)
    try:
        OPERATIONS[operation](cohort, int(value))
    except ElementExistsError:
        return EXISTS
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


def child(gate: int, arguments: list[str]) -> None:
    code = 1
    try:
        os.read(gate, 1)
        code = work(*arguments)
    except BaseException as error:
        sys.stderr.write(repr(error))
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Fork a child for every line of input, until it ends."""
    for line in sys.stdin:
        url, operations, value, *rest = line.rstrip("\n").split("\t")
        gate, start = os.pipe()
        children = []
        for number, operation in enumerate(operations.split("+")):
            process = os.fork()
            if process == 0:
                child(gate, [url, operation, str(int(value) + number), *rest])
            children.append(process)
        sys.stdout.write(" ".join(map(str, children)) + "\n")
        sys.stdout.flush()
        os.write(start, b"x" * len(children))
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]
        sys.stdout.write(" ".join(map(str, codes)) + "\n")
        sys.stdout.flush()
        os.close(gate)
        os.close(start)


def main() -> None:
    """Serve, or do one operation."""
    assert obstore.__name__  # imported before the children are forked; its threads begin with the first request
    if sys.argv[1:] == ["-"]:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            create(create_cohort(Path(folder, "c")), 0)  # imports what the children would import one by one
        serve()
    else:
        sys.exit(work(*sys.argv[1:]))


if __name__ == "__main__":
    main()
