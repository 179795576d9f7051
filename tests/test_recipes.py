"""Every configuration that the project ships is valid, says how to use it, and runs on tiny data of its layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.config import Config, load_config
from mri_io.testing import tiny_cohort
from mri_io.testing.raw_files import random_kspace, write_fastmri, write_png_pairs, xml_header
from mri_joint.config import RunConfig as JointConfig
from mri_joint.testing import tiny_starts
from mri_recon.config import RunConfig as ReconConfig
from mri_seg.config import RunConfig as SegConfig

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("packages/mri-cli/src/mri_cli/demo_configs/*.yaml")])
KINDS: dict[str, type[Config]] = {"recon": ReconConfig, "seg": SegConfig, "joint": JointConfig}


def test_there_are_some() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_valid(path: Path) -> None:
    text = path.read_text()
    kind = next(kind for kind in KINDS if f"mri-cli {kind} train COHORT --config" in text)
    assert path.name in text
    load_config(KINDS[kind], path)


def fastmri_files(folder: Path) -> None:
    """Write k-space of 48 x 40 of which columns 4 .. 35 were measured, and references of the central 32 x 32."""
    for number in range(1, 4):
        kspace = random_kspace((2, 3, 48, 40), number)
        kspace[..., :4], kspace[..., 36:] = 0, 0
        shifted = np.fft.ifftshift(kspace, axes=(-2, -1))
        images = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))
        rss = np.sqrt((np.abs(images) ** 2).sum(axis=1))[:, 8:40, 4:36].astype(np.float32)
        header = xml_header(48, 40, last=31, centre=16)
        write_fastmri(folder / f"file{number}.h5", kspace, rss=rss, patient=f"p{number}", xml=header)


def png_files(folder: Path) -> None:
    write_png_pairs(folder, ("A-1", "B-2", "C-3"), size=(32, 32))


SMALL_VARNET = ("model.cascades=1", "model.channels=2", "model.pools=2")
SMALL_UNET = ("model.widths=[4,8]", "training.batch_size=2")
TINY: dict[str, tuple[Callable[[Path], None] | None, tuple[str, ...]]] = {
    "varnet-fastmri": (fastmri_files, (*SMALL_VARNET, "model.sens_channels=2", "model.sens_pools=2")),
    "varnet-small": (None, SMALL_VARNET),
    "unet-cine": (png_files, SMALL_UNET),
    "varnet": (None, SMALL_VARNET),
    "unet": (None, SMALL_UNET),
    "joint": (None, ("curriculum=null",)),
}
"""Of every recipe: what writes raw files in its layout (none: the tiny cohort has it), and smaller networks."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_runs_on_tiny_data_of_its_layout(path: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    kind = next(kind for kind in KINDS if f"mri-cli {kind} train COHORT --config" in path.read_text())
    write, sizes = TINY[path.stem]
    cohort = tmp_path / "cohort"
    if write is None:
        tiny_cohort(cohort)
    else:
        (tmp_path / "raw").mkdir()
        write(tmp_path / "raw")
        assert cli("convert", tmp_path / "raw", cohort).status == 0
        assert cli("split", cohort, "--train", 1, "--val", 1, "--test", 1).status == 0
    settings = [*sizes, "training.steps=2", "training.validate_every=1", "training.num_workers=0"]
    settings += ["training.loggers=[csv]", "training.progress=false"]
    if kind == "joint":
        starts = tiny_starts(tmp_path)
        settings += [f"init.reconstruction={starts[0]}", f"init.segmentation={starts[1]}"]
    options = [f"--set={setting}" for setting in settings]
    done = cli(kind, "train", cohort, "--config", path, *options, "--out", tmp_path / "run")
    assert (done.status, "after 2 steps" in done.out) == (0, True), done.err


def test_a_network_of_the_fastmri_recipe_is_compared_with_the_cropped_reference(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """From files of that layout to the table; the result covers all of k-space, the reference its centre."""
    (tmp_path / "raw").mkdir()
    fastmri_files(tmp_path / "raw")
    cohort = tmp_path / "cohort"
    cli("convert", tmp_path / "raw", cohort)
    cli("split", cohort, "--train", 1, "--val", 1, "--test", 1)
    made = ("--mask", "equispaced", "--acceleration", 4)
    assert cli("recon", "run", cohort, "--method", "zero-filled", "--maps", "none", "--name", "full").status == 0
    assert cli("recon", "run", cohort, "--method", "zero-filled", "--maps", "none", *made, "--name", "r4").status == 0
    methods = ("--methods", "recon/full", "--methods", "recon/r4")
    done = cli("recon", "evaluate", cohort, "--reference", "recon/rss", *methods)
    assert done.status == 0, done.err
    rows = open_cohort(cohort).evaluations()["reconstruction"]["rows"]
    assert rows[0]["nmse"] == pytest.approx(0, abs=1e-10)
    assert rows[1]["nmse"] > 0.1
