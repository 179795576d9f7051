"""Exports of cohorts in which something is wrong with a volume, and going on with what is missing."""

import numpy as np
import pytest

from mri_io.errors import ConfigError, CorruptElementError, ElementExistsError
from mri_io.export import ElementExporter, export_cohort, table
from mri_io.testing import flip_bit, truncate

NAMES = [f"sub-0{n}_acq-tiny_run-1" for n in (1, 2, 3)]


def damage_data(tiny, path):
    """Damage the data of the second volume; return a function that mends it."""
    (file,) = (file for file in tiny[NAMES[1]][path].folder.glob("data/**/*") if file.is_file() and not file.suffix)
    whole = file.read_bytes()
    flip_bit(file, 8 * 40)
    return lambda: file.write_bytes(whole)


def damage_metadata(tiny, path):
    """Damage the metadata of the second volume."""
    file = tiny[NAMES[1]].path / "zarr.json"
    whole = file.read_bytes()
    truncate(file, 40)
    return lambda: file.write_bytes(whole)


@pytest.mark.parametrize("damage", [damage_data, damage_metadata])
@pytest.mark.parametrize("named", [False, True])
def test_the_others_are_written_and_a_second_run_goes_on(tiny, tmp_path, damage, named):
    out, volumes = tmp_path / "out", NAMES if named else None
    mend = damage(tiny, "image/t1")
    done = export_cohort(tiny, "image/t1", out, "nifti", progress=False, volumes=volumes)
    assert not done.ok
    assert [failure.label for failure in done.failures] == [NAMES[1]]
    written = [out / f"{NAMES[n]}_image-t1.nii.gz" for n in (0, 2)]
    assert [file for file in done.files if file.suffix == ".gz"] == written
    assert sorted(done.files) == sorted(out.iterdir())
    for file in written:
        file.write_bytes(b"as it was")
    with pytest.raises(ElementExistsError, match=r"exists already\. To overwrite it: --replace; to keep it: --skip"):
        export_cohort(tiny, "image/t1", out, "nifti", progress=False, volumes=volumes)
    mend()
    again = export_cohort(tiny, "image/t1", out, "nifti", progress=False, volumes=volumes, skip_existing=True)
    assert again.ok
    assert [file.name[: len(NAMES[1])] for file in again.files] == [NAMES[1]] * len(again.files)
    assert again.count("skipped") == 2
    assert {file.read_bytes() for file in written} == {b"as it was"}


def test_a_part_of_the_split_is_not_a_part_of_complex_images(cli, tiny, tmp_path):
    done = cli("export", tiny.path, "image/t1", tmp_path / "out", "--part", "test")
    expected = "part: expected magnitude, phase, real, imag, complex, got 'test'."
    assert (done.status, done.err) == (2, f"error: export:\n  {expected} That part of the split: --subjects test\n")


def test_the_command_names_what_failed(cli, tiny, tmp_path):
    mend, out = damage_data(tiny, "seg/tissue"), tmp_path / "out"
    done = cli("export", tiny.path, "seg/tissue", out, "--format", "png")
    assert done.status == 1
    assert done.out.startswith(f"6 files in {out}\nexport: 2 done, 0 skipped, 1 failed\n  failed: {NAMES[1]}: ")
    assert "--skip-existing" in done.out
    mend()
    done = cli("export", tiny.path, "seg/tissue", out, "--format", "png", "--skip-existing")
    assert (done.status, done.out) == (0, f"3 files in {out}\nexport: 1 done, 2 skipped, 0 failed\n")
    done = cli("export", tiny.path, "seg/tissue", out, "--format", "png", "--skip-existing")
    assert (done.status, done.out) == (0, f"0 files in {out}\nexport: 0 done, 3 skipped, 0 failed\n")


def test_one_is_no_plural(cli, tiny, tmp_path):
    for format, element, name in (("ome-zarr", "image/t1", "folder"), ("ismrmrd", "kspace", "file")):
        out = tmp_path / format
        done = cli("export", tiny.path, element, out, "--format", format, "--volume", NAMES[0])
        assert (done.status, done.out) == (0, f"1 {name} in {out}\n")
        done = cli("export", tiny.path, element, out, "--format", format, "--skip-existing")
        assert done.out.startswith(f"2 {name}s in {out}\n")


def test_what_is_there_in_part_is_written_again(tiny, tmp_path):
    first = export_cohort(tiny, "seg/tissue", tmp_path / "out", "png", progress=False).files
    before = [file.read_bytes() for file in first]
    first[4].unlink()
    first[3].write_bytes(b"of another run")
    again = export_cohort(tiny, "seg/tissue", tmp_path / "out", "png", progress=False, skip_existing=True)
    assert again.files == first[3:6]
    assert [file.read_bytes() for file in first] == before


def test_when_nothing_can_be_written_the_error_is_raised(tiny, tmp_path, made):
    damage_data(tiny, "image/t1")
    image = np.ones((3, 10, 8), np.float32)
    for name, affine in zip(NAMES, (None, np.eye(4), None), strict=True):
        tiny[name].write("image/x", image, provenance=made, affine=affine)
        tiny[name].write("image/none", image, provenance=made)
    done = export_cohort(tiny, "image/x", tmp_path / "out", "dicom", progress=False)
    assert [file.name for file in done.files] == [f"{NAMES[1]}_image-x"]
    assert [(failure.label, "affine: expected one" in failure.error) for failure in done.failures] == [
        (NAMES[0], True),
        (NAMES[2], True),
    ]
    with pytest.raises(ConfigError, match="affine: expected one, for DICOM, got none"):
        export_cohort(tiny, "image/none", tmp_path / "out", "dicom", progress=False)
    damage_metadata(tiny, "image/t1")
    with pytest.raises(CorruptElementError):
        export_cohort(tiny, "image/t1", tmp_path / "out", "nifti", progress=False, volumes=NAMES[1:2])


def test_exporters_may_fail_as_they_like(tiny, tmp_path, monkeypatch):
    class Fragile(ElementExporter):
        name, summary = "fragile", "Fails on one volume"

        def names(self, item):
            return [f"{self.stem(item)}.txt"]

        def write(self, item, targets):
            targets[0].write_text("begun")
            if item.element.volume_id == NAMES[0]:
                raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(table, "plugin_names", lambda group: ("fragile",))
    monkeypatch.setattr(table, "load_plugin", lambda group, name: Fragile)
    done = export_cohort(tiny, "image/t1", tmp_path / "out", "fragile", progress=False)
    assert [(f.label, f.error) for f in done.failures] == [(NAMES[0], "ZeroDivisionError: by nothing")]
    assert sorted((tmp_path / "out").iterdir()) == done.files
    assert len(done.files) == 2


def test_data_sets_are_written_whole_or_kept(tiny, tmp_path):
    options = {"labels": ["seg/tissue"], "progress": False}
    mend = damage_data(tiny, "image/t1")
    with pytest.raises(CorruptElementError):
        export_cohort(tiny, "image/t1", tmp_path / "out", "nnunet", **options)
    assert not list((tmp_path / "out").iterdir())
    mend()
    assert len(export_cohort(tiny, "image/t1", tmp_path / "out", "nnunet", skip_existing=True, **options).files) == 1
    again = export_cohort(tiny, "image/t1", tmp_path / "out", "nnunet", skip_existing=True, **options)
    assert (again.files, again.count("skipped")) == ([], 1)
    with pytest.raises(ConfigError, match="files that exist: expected replace or skip_existing, got both"):
        export_cohort(tiny, "image/t1", tmp_path, "nnunet", skip_existing=True, replace=True, **options)
