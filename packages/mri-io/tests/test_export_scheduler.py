"""Exports on workers: the files of a serial export, failures by volume, and nothing left of workers that die."""

import os
import pickle
import signal
import threading

import numpy as np
import pytest

from mri_io.errors import CorruptElementError, StoreError
from mri_io.export import ElementExporter, export_cohort, exporter_class, exporter_names, make_exporter, table
from mri_io.export.base import ExportItem
from mri_io.export.publishing import appearing, remove_unfinished
from mri_io.prep import run_tasks
from mri_io.testing import flip_bit

NAMES = [f"sub-0{n}_acq-tiny_run-1" for n in (1, 2, 3)]
ELEMENTS = {"bart": "kspace", "ismrmrd": "kspace", "dicom-seg": "seg/tissue"}


@pytest.fixture
def cohort(tiny, made, rng):
    """Three volumes with an image that every format can hold."""
    for volume in tiny.volumes():
        image = rng.random((3, 10, 8)).astype(np.float32)
        volume.write("recon/x", image, provenance=made, affine=np.diag([2.0, 2.0, 3.0, 1.0]))
    return tiny


def content(folder):
    """Return the bytes of all files below a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def damage(cohort, *numbers):
    for number in numbers:
        data = cohort[NAMES[number]]["recon/x"].folder / "data"
        flip_bit(next(file for file in data.rglob("*") if file.is_file() and not file.suffix), 8 * 40)


@pytest.mark.parametrize("format", ["nifti", "ome-zarr"])
def test_files_do_not_depend_on_the_scheduler(cohort, tmp_path, monkeypatch, format):
    """Nor on the folder that workers are in: both paths are relative."""
    monkeypatch.chdir(cohort.path.parent)
    for scheduler in ("sync", "local:2"):
        options = {"scheduler": scheduler, "progress": False}
        out = f"out-{scheduler[:4]}"
        done = export_cohort(cohort.path.name, "recon/x", out, format, **options)
        assert done.ok
        assert {str(file.parent) for file in done.files} == {out}
        assert [file.name[: len(NAMES[0])] for file in done.files] == NAMES
        again = export_cohort(cohort.path.name, "recon/x", out, format, skip_existing=True, **options)
        assert (again.files, again.count("skipped")) == ([], 3)
    first, second = (content(cohort.path.parent / name) for name in ("out-sync", "out-loca"))
    assert len(first) >= 3
    assert first == second


def test_a_broken_volume_is_a_failure_on_workers_too(cli, cohort, tmp_path):
    damage(cohort, 1)
    out = tmp_path / "out"
    done = cli("export", cohort.path, "recon/x", out, "--scheduler", "local:2")
    assert done.status == 1
    assert done.out.startswith(f"2 files in {out}\nexport: 2 done, 0 skipped, 1 failed\n  failed: {NAMES[1]}: ")
    assert "the bytes do not match their checksum" in done.out
    assert "export: 3 volumes, up to " in done.err
    assert sorted(file.name for file in out.iterdir()) == [f"{NAMES[n]}_recon-x.nii.gz" for n in (0, 2)]
    damage(cohort, 0, 2)
    for scheduler in ("sync", "local:2"):
        with pytest.raises(CorruptElementError, match=rf"{NAMES[0]}.*do not match their checksum") as raised:
            export_cohort(cohort, "recon/x", tmp_path / "none", "nifti", scheduler=scheduler, progress=False)
        assert "element.py" in raised.value.__notes__[0]  # where it came from
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize("scheduler", ["sync", "local:1"])
def test_failures_raise_what_was_raised(scheduler):
    def fail(error):
        if error is None:
            error = ValueError("holds what cannot travel")
            error.lock = threading.Lock()
        raise error

    errors = [ZeroDivisionError("by nothing"), CorruptElementError("damaged"), FileNotFoundError(2, "gone")]
    options = {"scheduler": scheduler, "retries": 0, "labels": ["a", "b", "c", "d"], "progress": False}
    *alike, last = run_tasks(fail, [*errors, None], **options).failures
    for failure, error in zip(alike, errors, strict=True):
        with pytest.raises(type(error)) as raised:
            failure.reraise()
        assert type(raised.value) is type(error)
        assert raised.value.args == error.args
    kind, text = (ValueError, "holds") if scheduler == "sync" else (StoreError, "d: ValueError: holds")
    with pytest.raises(kind, match=rf"^{text} what cannot travel"):
        last.reraise()


class Dying(ElementExporter):
    """Writes a folder and a file; its process is killed in the midst of it, the first time."""

    name, summary = "dying", "Dies once"

    def names(self, item):
        return [f"{self.stem(item)}.folder", f"{self.stem(item)}.txt"]

    def write(self, item, targets):
        targets[0].mkdir()
        (targets[0] / "half").write_text("x")
        died = item.volume.path.parent.parent / "died"
        if item.element.volume_id == NAMES[1] and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        targets[1].write_text("y")


def test_nothing_is_left_of_a_worker_that_was_killed(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "plugin_names", lambda group: ("dying",))
    monkeypatch.setattr(table, "load_plugin", lambda group, name: Dying)
    done = export_cohort(cohort, "recon/x", tmp_path / "out", "dying", scheduler="local:2", progress=False)
    assert done.ok
    assert (cohort.path / "died").exists()
    assert sorted((tmp_path / "out").iterdir()) == sorted(done.files)
    assert len(done.files) == 6


def test_what_was_to_be_replaced_comes_back(tmp_path):
    def killed(*_):
        raise SystemError

    target = tmp_path / "a.folder"
    target.mkdir()
    (target / "old").touch()
    other = tmp_path / ".other.a.folder"
    other.touch()
    with pytest.MonkeyPatch.context() as patch:
        # As after a kill between the two renames: neither the error nor the end of the block mends it.
        patch.setattr("mri_io.export.publishing._remove", lambda path: None)
        renamed = type(target).rename
        patch.setattr(type(target), "rename", lambda old, new: renamed(old, new) if old == target else killed())
        with pytest.raises(SystemError), appearing([target], "mark") as (temporary,):
            (temporary / "new").mkdir(parents=True)
    assert not target.exists()
    remove_unfinished([target], "mark")
    assert sorted(tmp_path.iterdir()) == [other, target]
    assert [file.name for file in target.iterdir()] == ["old"]


def test_who_interrupts_is_told_how_to_go_on(cli, cohort, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter_class("nifti"), "write", interrupt)
    command = ("export", cohort.path, "recon/x", tmp_path / "out")
    done = cli(*command)
    assert done.status == 130
    assert "interrupted after 0 of 3 (0 done, 0 skipped, 0 failed)" in done.err
    assert "with --skip-existing the same command goes on with the rest." in done.err
    assert "run the same command again" in cli(*command, "--skip-existing").err
    assert not list((tmp_path / "out").iterdir())


def test_data_sets_are_not_written_on_workers(cli, cohort, tmp_path):
    command = ("export", cohort.path, "recon/x", tmp_path / "out", "--format", "nnunet", "--label", "seg/tissue")
    done = cli(*command, "--scheduler", "local:2")
    assert done.status == 2
    assert "scheduler: expected sync for nnunet, which is written as a whole, got 'local:2'" in done.err
    assert "scheduler: expected sync, local[:N]" in cli(*command, "--scheduler", "cluster").err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    # What fastMRI takes is of its own data set: see test_export_fastmri.
    "format",
    [name for name in exporter_names() if issubclass(exporter_class(name), ElementExporter) and name != "fastmri"],
)
def test_exporters_travel_after_they_have_told_the_names(cohort, made, format):
    volume = cohort.volumes()[0]
    exporter, item = make_exporter(format), ExportItem(volume[ELEMENTS.get(format, "recon/x")])
    if format == "dicom-seg":  # DICOM wants an affine
        labels = volume["seg/tissue"]
        options = {"labels": labels.labels, "affine": volume["recon/x"].affine, "provenance": made}
        item = ExportItem(volume.write("seg/x", labels.numpy(), **options))
    names = exporter.names(item)
    there, its_item = pickle.loads(pickle.dumps((exporter, item)))
    assert there.names(its_item) == names
    assert there.memory(its_item) == exporter.memory(item) > 0
