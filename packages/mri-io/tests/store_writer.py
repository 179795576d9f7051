"""A process that forks writers on request, for the tests of crashes; run as a script by them.

Every line of input is ``<cohort> <operation> <value> <crash>``: a child is forked that performs the operation and dies,
as of SIGKILL, at the given number of calls that change the file system; 0 lets it live. Answered with the child's
number at once, and with its exit status when it has ended. An operation ``a+b`` races children of both.
"""

import io
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from mri_io.errors import ElementExistsError, StoreError
from mri_io.schema import Provenance
from mri_io.store import commit, create_cohort, open_cohort, shards

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


def create(cohort, value, *, replace=False):
    with cohort.create_volume(ID, subject_id="sub-01", attributes={"writer": value}, replace=replace) as volume:
        for name in ("a", "b"):
            volume.write(f"recon/{name}", data(value), provenance=made(value))


def without_exchange(cohort, value):
    commit._exchange = lambda *_: False
    write(cohort, value, replace=True)


def with_limit(cohort, value):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (value, before[1]))
    try:
        write(cohort, value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def endless(cohort, value):
    """Write, replace and create for as long as it lives."""
    for number in range(10**6):
        write(cohort, value + number, name="ab"[number % 2], replace=True)
        create(cohort, value + number, replace=True)


OPERATIONS = {
    "write": write,
    "replace": lambda cohort, value: write(cohort, value, replace=True),
    "write-other": lambda cohort, value: write(cohort, value, name=f"x{value}"),
    "create": create,
    "replace-volume": lambda cohort, value: create(cohort, value, replace=True),
    "without-exchange": without_exchange,
    "remove": lambda cohort, value: cohort[ID].remove("recon/a"),
    "remove-volume": lambda cohort, value: cohort.remove_volume(ID),
    "with-limit": with_limit,
    "endless": endless,
}


def die_at(number: int) -> None:
    """Let the process die at the given call that changes the file system."""
    left = number

    def dying(function):
        def call(*args, **kwargs):
            nonlocal left
            reads = function is io_open and not set("wxa+") & set(str(args[1] if len(args) > 1 else "r"))
            left -= not reads
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    io_open = io.open
    io.open = dying(io_open)
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))
    commit._exchange = dying(commit._exchange)
    shards._write = dying(shards._write)


def child(cohort: str, operation: str, value: int, crash: int, gate: int) -> None:
    """Do one operation in a child; the exit status says how it went."""
    opened = open_cohort(cohort)
    os.read(gate, 1)
    if crash:
        die_at(crash)
    try:
        OPERATIONS[operation](opened, value)
    except ElementExistsError:
        os._exit(EXISTS)
    except StoreError as error:
        Path(cohort, "error.txt").write_text(str(error))
        os._exit(REFUSED)
    except BaseException as error:
        sys.stderr.write(repr(error))
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        create(create_cohort(Path(folder, "c")), 0)  # imports what the children would import one by one
    for line in sys.stdin:
        cohort, operations, value, crash = line.rstrip("\n").split("\t")
        gate, start = os.pipe()
        children = []
        for number, operation in enumerate(operations.split("+")):
            process = os.fork()
            if process == 0:
                child(cohort, operation, int(value) + number, int(crash), gate)
            children.append(process)
        sys.stdout.write(f"{children[0]}\n")
        sys.stdout.flush()
        os.write(start, b"x" * len(children))
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]
        sys.stdout.write(" ".join(map(str, codes)) + "\n")
        sys.stdout.flush()
        os.close(gate)
        os.close(start)


if __name__ == "__main__":
    os.fsync = lambda descriptor: None  # a killed process loses nothing that it wrote; saves most of the time
    main()
