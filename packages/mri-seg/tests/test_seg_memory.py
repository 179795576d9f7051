"""What a run says that it will need, against the resident size of a process that runs."""

import sys

import numpy as np
import pytest

from mri_io import create_cohort, open_cohort
from mri_io.schema import Provenance
from mri_io.testing.peak_memory import peak_growth
from mri_io.training import save_checkpoint
from mri_seg.config import MonaiUnetConfig, RunConfig
from mri_seg.memory import LIBRARIES, segmentation_memory
from mri_seg.networks import build_run_network
from mri_seg.run import run

CONFIG = RunConfig(model=MonaiUnetConfig(widths=(32, 64)), labels={1: "outer", 2: "inner"})
SHAPE = (16, 256, 256)


def prepared(folder, shape):
    """Return a cohort of one volume and the checkpoint of an untrained network."""
    cohort = create_cohort(folder / "cohort")
    image = np.random.default_rng(0).standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("recon/reference", image, provenance=Provenance.of("mri-io", "test"), affine=np.eye(4))
    state = {f"network.{name}": value for name, value in build_run_network(CONFIG).state_dict().items()}
    return cohort.path, save_checkpoint(folder / "seg.ckpt", state, kind="seg", config=CONFIG)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what libraries take differs")
def test_a_run_takes_what_is_estimated(tmp_path):
    cohort, checkpoint = prepared(tmp_path, SHAPE)
    code = "from mri_seg.run import run; assert run(sys.argv[1], sys.argv[2]).ok"
    grown = peak_growth("import mri_io.prep.runner", code, [cohort, checkpoint])
    estimate = segmentation_memory(SHAPE, CONFIG.model, labels=3, weights=checkpoint.stat().st_size)
    assert estimate / 3 < grown < estimate


def test_a_run_says_what_it_needs(tmp_path, capsys):
    cohort, checkpoint = prepared(tmp_path, (2, 32, 24))
    estimate = segmentation_memory((2, 32, 24), CONFIG.model, labels=3, weights=checkpoint.stat().st_size)
    assert run(cohort, checkpoint).ok
    assert f"1 volume, up to {estimate / 1e9:.1f} GB each" in capsys.readouterr().err
    assert "seg/monai-unet-reference" in open_cohort(cohort).volumes()[0]


def test_estimates_grow_with_the_data_and_the_network():
    def beside(shape=SHAPE, model=CONFIG.model, **options):
        return segmentation_memory(shape, model, **{"labels": 3, **options}) - LIBRARIES

    pixels = 256 * 256
    assert beside((32, 256, 256)) - beside() == 16 * pixels * 40  # no more slices at once
    assert beside() - beside((4, 256, 256)) > 12 * pixels * 40
    assert beside(channels=2) - beside() == 16 * pixels * 16
    assert beside(model=MonaiUnetConfig(widths=(64, 128))) - beside() == 8 * pixels * 4 * 64
    assert beside(labels=40) > beside()
    assert beside(window=(64, 64)) < beside()
    assert beside(weights=10) - beside() == 40
