"""What a run says that it will need, against the resident size of a process that runs."""

import sys

import pytest

from mri_io.testing import tiny_cohort
from mri_io.testing.peak_memory import peak_growth
from mri_io.training import save_checkpoint
from mri_joint.config import RunConfig
from mri_joint.memory import joint_memory
from mri_joint.models import build_network
from mri_joint.run import run
from mri_recon.config import VarNetConfig
from mri_recon.memory import reconstruction_memory
from mri_seg.config import MonaiUnetConfig
from mri_seg.memory import LIBRARIES

CONFIG = RunConfig(
    reconstruction=VarNetConfig(cascades=1, channels=8, pools=2, coil_maps="stored"),
    segmentation=MonaiUnetConfig(widths=(16, 32)),
    labels={1: "outer", 2: "inner"},
)


def prepared(folder, **sizes):
    """Return a cohort of one volume and the checkpoint of an untrained network."""
    cohort = tiny_cohort(folder / "cohort", subjects=1, **sizes)
    state = {f"network.{name}": value for name, value in build_network(CONFIG).state_dict().items()}
    return cohort, save_checkpoint(folder / "joint.ckpt", state, kind="joint", config=CONFIG)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what libraries take differs")
def test_a_run_takes_what_is_estimated(tmp_path):
    cohort, checkpoint = prepared(tmp_path, slices=8, coils=8, matrix=(256, 256))
    code = "from mri_joint.run import run; assert run(sys.argv[1], sys.argv[2]).ok"
    grown = peak_growth("import mri_io.prep.runner", code, [cohort.path, checkpoint])
    estimate = joint_memory(cohort.volumes()[0], CONFIG, checkpoint.stat().st_size)
    assert estimate / 3 < grown < estimate


def test_a_run_says_what_it_needs(tmp_path, capsys):
    cohort, checkpoint = prepared(tmp_path)
    estimate = joint_memory(cohort.volumes()[0], CONFIG, checkpoint.stat().st_size)
    assert run(cohort.path, checkpoint).ok
    assert f"1 volume, up to {estimate / 1e9:.1f} GB each" in capsys.readouterr().err


def test_both_needs_count(tmp_path):
    few = tiny_cohort(tmp_path / "few", subjects=1, coils=1, slices=1, matrix=(64, 64)).volumes()[0]
    many = tiny_cohort(tmp_path / "many", subjects=1, coils=24, slices=1, matrix=(64, 64)).volumes()[0]
    more = reconstruction_memory(many, CONFIG.reconstruction) - reconstruction_memory(few, CONFIG.reconstruction)
    assert joint_memory(many, CONFIG) - joint_memory(few, CONFIG) == more > 0
    wide = CONFIG.model_copy(update={"segmentation": MonaiUnetConfig(widths=(256, 512))})
    assert joint_memory(few, wide) > joint_memory(few, CONFIG) > LIBRARIES
