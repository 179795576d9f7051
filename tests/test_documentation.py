"""The code of the documentation runs as it is printed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import zarr

from mri_io import open_cohort
from mri_io.testing import tiny_cohort
from mri_io.testing.packages import install_source

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def commands(tmp_path):
    """Return a function that runs commands of ``mri-cli`` with packages of a folder; warnings of leaks are errors."""

    def run(command: str, site: Path, status: int = 0) -> str:
        program, *arguments = shlex.split(command)
        assert program == "mri-cli"
        environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "always::ResourceWarning"}
        done = subprocess.run(
            [sys.executable, "-m", "mri_cli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        assert "ResourceWarning" not in done.stderr
        return done.stdout

    return run


def test_the_package_of_the_page_on_extending_works(tmp_path, commands):
    pytest.importorskip("hatchling")
    source = tmp_path / "mri-spectro"
    (source / "mri_spectro").mkdir(parents=True)
    (source / "mri_spectro" / "__init__.py").touch()
    for text in blocks("extending.md", "toml") + blocks("extending.md", "python"):
        (source / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    site = install_source(tmp_path / "site", source)
    (install, *lines) = blocks("extending.md", "sh")[0].splitlines()
    assert install == "pip install -e ."
    printed = {line.split()[1]: commands(line, site) for line in lines}
    assert printed["convert"] == "convert: 1 done, 0 skipped, 0 failed\n"
    assert printed["prep"] == "apodise: 1 done, 0 skipped, 0 failed\n"
    assert "fid/apodised" in printed["info"]
    assert "1 volume, 2 elements" in printed["verify"]

    (tmp_path / "sub-02.fid").write_bytes((tmp_path / "sub-01.fid").read_bytes()[:-8])
    refused = commands("mri-cli convert sub-02.fid cohort", site, status=1)
    assert "sub-02.fid: file: expected b'FID1' and 4108 bytes, got b'FID1' and 4100" in refused
    stored = tmp_path / "cohort" / "volumes" / "sub-01_acq-press_run-1.zarr" / "fid" / "raw" / "data"
    decay = np.frombuffer((tmp_path / "sub-01.fid").read_bytes(), "<c8", offset=12).reshape(2, 256)
    np.testing.assert_array_equal(zarr.open_array(stored, mode="r")[...], decay)
    assert len(open_cohort(tmp_path / "cohort")) == 1


def test_the_code_of_the_page_on_python_runs(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    cohort = tiny_cohort(tmp_path / "cohort")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, text in enumerate(blocks("python.md", "python")):
        exec(compile(text, f"docs/python.md, block {number}", "exec"), names)
    assert names["first"].shape == (32, 24)
    assert names["sample"]["image/t1"].shape == (32, 24)
    assert names["batch"]["seg/tissue"].shape == (2, 32, 24)
    assert not names["kspace"].flags.writeable
    bright = cohort["sub-01_acq-tiny_run-1"]["seg/bright"]
    np.testing.assert_array_equal(bright.numpy(), cohort["sub-01_acq-tiny_run-1"]["image/t1"].numpy() > 0.5)


def test_label_maps_of_bids_derivatives_come_in_as_the_page_says(tmp_path):
    image = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    files = {
        "sub-01/anat/sub-01_T1w": image,
        "sub-01/anat/sub-01_T2w": image,
        "sub-01/func/sub-01_task-rest_bold": np.stack([image, image], axis=-1),
        "derivatives/manual/sub-01/anat/sub-01_T1w_label-lesion_mask": (image > 0.5).astype(np.uint8),
    }
    for name, array in files.items():
        file = tmp_path / "bids" / f"{name}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), file)
    (recipe,) = [text for text in blocks("formats/nifti.md", "sh") if "derivatives" in text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", recipe], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {volume.id: list(volume) for volume in open_cohort(tmp_path / "cohort")}
    assert found == {
        "sub-01_acq-bold_run-1": ["image/bold"],
        "sub-01_acq-t1w_run-1": ["image/t1w", "seg/lesion"],
        "sub-01_acq-t2w_run-1": ["image/t2w"],
    }
