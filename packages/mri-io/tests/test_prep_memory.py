"""Memory: what is free by the machine and its control groups, how many workers fit, what is said of it."""

import h5py
import numpy as np
import psutil
import pytest

from mri_io import create_cohort, open_cohort, verify
from mri_io.formats import find_items, get_format
from mri_io.prep import memory, prepare_cohort, run_tasks
from mri_io.prep.memory import PROCESS_BYTES, free_memory, plan_memory
from mri_io.testing.clusters import meet
from mri_io.testing.peak_memory import peak_bytes

GB = 10**9


def test_what_is_free_is_what_the_system_says():
    assert free_memory() <= psutil.virtual_memory().available * 1.1
    assert free_memory() > 10**7


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Control groups of a made-up system with 64 GB available."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": 64 * GB})())
    return tmp_path


def test_a_control_group_of_version_2_limits(system):
    (system / "self").write_text("0::/slurm/job/step\n")
    group(system / "cgroup" / "slurm" / "job" / "step", memory__max="max", memory__current=3 * GB)
    group(system / "cgroup" / "slurm" / "job", memory__max=8 * GB, memory__current=6 * GB)
    assert free_memory() == 2 * GB
    # What caches files is given back when memory is wanted.
    (system / "cgroup" / "slurm" / "job" / "memory.stat").write_text(f"anon {2 * GB}\ninactive_file {3 * GB}\n")
    assert free_memory() == 5 * GB
    group(system / "cgroup" / "slurm" / "job", memory__current=20 * GB)
    assert free_memory() == 0


def test_a_control_group_of_version_1_limits_also_from_within_a_container(system):
    (system / "self").write_text("5:cpu:/docker/abc\n4:cpu,memory:/docker/abc\n")
    files = {"memory__limit_in_bytes": 4 * GB, "memory__usage_in_bytes": GB}
    group(system / "cgroup" / "memory", **files)  # a container sees its own group as the root
    assert free_memory() == 3 * GB
    group(system / "cgroup" / "memory" / "docker" / "abc", **{**files, "memory__limit_in_bytes": 2 * GB})
    assert free_memory() == GB
    group(system / "cgroup" / "memory" / "docker" / "abc", **{**files, "memory__limit_in_bytes": 2**63 - 4096})
    assert free_memory() == 3 * GB


def test_without_control_groups_the_machine_decides(system):
    assert free_memory() == 64 * GB
    (system / "self").write_text("0::/\n1:name=systemd:/x\nnonsense\n")
    assert free_memory() == 64 * GB


@pytest.mark.parametrize(
    ("needs", "wanted", "free", "workers", "needed"),
    [
        ([GB] * 10, 4, 100 * GB, 4, 5.2),
        ([GB] * 10, 4, 4 * GB, 3, 3.9),
        ([GB] * 10, 4, None, 4, 5.2),
        ([5 * GB, GB, GB], 3, 7 * GB, 2, 6.6),  # the largest two at once
        ([5 * GB, GB, GB], 3, GB, 1, 5.3),
        ([], 2, GB, 2, 0.6),
    ],
)
def test_as_many_workers_as_fit_and_at_least_one(needs, wanted, free, workers, needed):
    plan = plan_memory(needs, wanted, free)
    assert (plan.workers, plan.needed / GB) == (workers, pytest.approx(needed))
    assert plan.fits == (free is None or needed * GB <= free)


def test_local_workers_are_fitted_and_it_is_said(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("mri_io.prep.runner.free_memory", lambda: 2 * (PROCESS_BYTES + GB) + 1000)

    def work(item: int) -> dict:
        import os

        meet(tmp_path, 2)
        return {"pid": os.getpid()}

    summary = run_tasks(work, range(6), scheduler="local:4", description="convert", memory=lambda item: GB)
    assert len({result["pid"] for result in summary.results}) == 2
    assert capfd.readouterr().err.splitlines()[0] == (
        "convert: 6 volumes, up to 1.0 GB each beside 0.3 GB per process; 2 workers, fewer than the 4 asked for, need "
        "2.6 GB of 2.6 GB free"
    )


def test_when_not_even_one_fits_it_is_said_and_tried(monkeypatch, capsys):
    monkeypatch.setattr("mri_io.prep.runner.free_memory", lambda: GB)
    assert run_tasks(lambda item: {}, [0], description="convert", memory=4 * GB).ok
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("; 1 worker needs 4.3 GB of 1.0 GB free")
    assert second == (
        "convert: warning: one volume may need 4.3 GB, and 1.0 GB are free: the system may end the work. Close other "
        "programs, or use a machine with more memory (--scheduler slurm or tcp://host:port)."
    )
    run_tasks(lambda item: {}, [0], progress=False, memory=4 * GB)
    assert capsys.readouterr().err == ""


def test_an_estimate_that_fails_stops_nothing(capsys):
    def estimate(item: int) -> int:
        if item == 0:
            raise FileNotFoundError("gone")
        return 2 * GB

    assert run_tasks(lambda item: {}, [0, 1], description="convert", memory=estimate).ok
    assert "2 volumes, up to 2.0 GB each" in capsys.readouterr().err


def test_the_estimate_of_a_cohort_is_given_the_volumes(tiny, capsys):
    seen = []

    def estimate(volume) -> int:
        seen.append(volume.id)
        return volume["kspace"].nbytes

    prepare_cohort(tiny, lambda volume: {}, description="look", memory=estimate)
    assert seen == tiny.volume_ids()
    assert "look: 3 volumes, up to 0.1 MB each" in capsys.readouterr().err


CONVERT = """
from mri_io.convert import convert
assert convert([sys.argv[1]], sys.argv[2], progress=False).ok
"""


def big_file(path, slices: int, coils: int = 15, matrix: tuple[int, int] = (640, 368)) -> None:
    """Write k-space of the fastMRI layout slice by slice."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        kspace = file.create_dataset("kspace", (slices, coils, *matrix), np.complex64)
        one = rng.standard_normal((coils, *matrix, 2), np.float32).view(np.complex64)[..., 0]
        for number in range(slices):
            kspace[number] = one * (number + 1)
        file.attrs["acquisition"] = "AXT2"


def test_converting_streams(tmp_path):
    """All processes, that which parses the file among them, hold no more than is promised, far less than the file."""
    create_cohort(tmp_path / "c")
    big_file(tmp_path / "large.h5", 22)
    size = (tmp_path / "large.h5").stat().st_size
    assert size > 600e6
    (item,) = find_items([tmp_path / "large.h5"])
    promised = PROCESS_BYTES + get_format("fastmri").memory(item)
    assert promised < size
    assert peak_bytes(CONVERT, [tmp_path / "large.h5", tmp_path / "c"]) < promised
    assert verify(open_cohort(tmp_path / "c")).ok
