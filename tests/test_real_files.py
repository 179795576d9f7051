"""All real files in one command: what is broken fails by name, the rest is described, verified, and exported equal."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK

from mri_io import open_cohort
from mri_io.store import Cohort, Volume

pytestmark = pytest.mark.realdata
Cli = Callable[..., Any]
BROKEN = {
    "MR_truncated.dcm": "the pixels cannot be read",
    "T1_3echo_mag_real_imag_phase.PAR": "REC: expected beside T1_3echo_mag_real_imag_phase.PAR, found no file",
}
ONCE = {
    "kspace": 4,
    "image/epi": 4,
    "image/t2": 4,
    "image/t1w": 1,
    "image/t1": 1,
    "image/image": 2,
    "seg/seg-manual": 2,
}
"""How many volumes have an element, but for the frames of the heart, of which there is one for each patient."""


@pytest.fixture(scope="module")
def converted(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The cohort of all folders, and what the command printed."""
    cohort = tmp_path_factory.mktemp("real") / "cohort"
    folders = sorted(str(folder) for folder in real_data.iterdir() if folder.is_dir())
    done = subprocess.run(
        [sys.executable, "-m", "mri_cli", "convert", *folders, str(cohort), "--axes", "coil,ky,kx"],
        capture_output=True,
        text=True,
        env=dict(os.environ, COLUMNS="200"),
        check=False,
    )
    assert done.returncode == 1, done.stderr  # of the two broken files
    return cohort, done.stdout + done.stderr


def test_only_what_is_broken_fails(converted: tuple[Path, str], real_data: Path, cli: Cli) -> None:
    path, printed = converted
    cohort = open_cohort(path)
    errors = [row["error"] for row in cohort.failures()]
    assert len(errors) == len(BROKEN), errors
    for name, text in BROKEN.items():
        (error,) = (error for error in errors if name in error)
        assert text in error
        assert error in printed
    patients = {file.name.partition("-IM")[0] for file in (real_data / "cardiac_cine" / "Images").rglob("*.png")}
    found = [path for volume in cohort.volumes() for path in volume.elements()]
    assert {name: found.count(name) for name in ONCE} == ONCE
    assert found.count("image/cine") == found.count("seg/mask") == len(patients)
    assert f"{len(cohort)} done, 0 skipped, 2 failed" in printed
    verified = cli("verify", path)
    assert verified.status == 0, verified.out + verified.err


def labelled(cohort: Cohort) -> Volume:
    (volume,) = (volume for volume in cohort.volumes() if "seg/label" in volume)
    return volume


def test_info_says_what_is_there(
    converted: tuple[Path, str], real_data: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path, _ = converted
    text = cli("info", path).out
    for name, count in ONCE.items():
        (line,) = (line for line in text.splitlines() if f" {name} " in line)
        assert line.split("│")[2].strip() == str(count)
    assert "(256, 256, 256)" in text  # shapes
    volume = labelled(open_cohort(path))
    original = SimpleITK.ReadImage(str(real_data / "brain_tumour" / "brain1_image.nrrd"))
    described = json.loads(cli("info", path, "--volume", volume.id, "--json").out)
    for entry in described["elements"]:
        assert tuple(entry["dims"].values()) == original.GetSize()[::-1]
        assert entry["voxel_size_mm"] == pytest.approx(original.GetSpacing(), abs=1e-3)
        folder = volume[entry["path"]].folder
        assert 0 < entry["stored_bytes"] <= sum(file.stat().st_size for file in Path(folder).rglob("*"))
        assert entry["method"] == "convert nrrd"
        assert entry["package"].startswith("mri-io ")
    assert described["elements"][1]["labels"] == {"1": "label 1"}
    assert described["source"]["format"] == "nrrd"
    shown = cli("info", path, "--volume", volume.id).out
    for part in ("slice 25, y 256, x 256", "0.7812 x 0.7812 x 6.5", "1 label 1", "MB", "convert nrrd (mri-io"):
        assert part in shown, part


def test_a_labelled_volume_leaves_equal(converted: tuple[Path, str], real_data: Path, cli: Cli, tmp_path: Path) -> None:
    path, _ = converted
    volume = labelled(open_cohort(path))
    for name, file in (("image/image", "brain1_image.nrrd"), ("seg/label", "brain1_label.nrrd")):
        original = SimpleITK.ReadImage(str(real_data / "brain_tumour" / file))
        out = tmp_path / name
        assert cli("export", path, name, out, "--volume", volume.id).status == 0
        (written,) = out.glob("*.nii.gz")
        image = nibabel.load(written)
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, SimpleITK.GetArrayFromImage(original))
        for index in ((0, 0, 0), (255, 0, 0), (0, 255, 0), (10, 20, 24)):
            place = np.array(original.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]  # ITK's axes are LPS
            np.testing.assert_allclose(nibabel.affines.apply_affine(image.affine, index), place, atol=1e-3)
    out = tmp_path / "dicom"
    assert cli("export", path, "seg/label", out, "--format", "dicom-seg", "--volume", volume.id).status == 0
    (written,) = out.rglob("segmentation.dcm")
    drawn = highdicom.seg.segread(written).get_volume(combine_segments=True)
    grid = np.diag([-1.0, -1, 1, 1]) @ image.affine[:, [2, 1, 0, 3]]  # (slice, row, column) to LPS
    same = drawn.match_geometry(highdicom.VolumeGeometry(grid, original.GetSize()[::-1], "PATIENT"))
    np.testing.assert_array_equal(same.array, SimpleITK.GetArrayFromImage(original) > 0)
