"""The same results on a CUDA device as on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.testing import tiny_cohort

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_classical_reconstructions_agree(tmp_path: Path) -> None:
    from mri_recon.calibrate import calibrate
    from mri_recon.run import run
    from mri_recon.stored_masks import MaskConfig

    cohort = tiny_cohort(tmp_path / "cohort", matrix=(48, 40))
    for device in ("cpu", "cuda"):
        assert calibrate(cohort.path, name=f"maps-{device}", device=device).ok
        sampling = MaskConfig(name="equispaced", acceleration=2, center_fraction=0.3)
        assert run(cohort.path, method="cg-sense", mask=sampling, name=f"cg-{device}", device=device).ok
    for volume in cohort.volumes():
        for path in ("sens/maps-{}", "recon/cg-{}"):
            one, two = (volume[path.format(device)].numpy() for device in ("cpu", "cuda"))
            assert np.linalg.norm(one - two) < 1e-3 * np.linalg.norm(one)


def test_training_and_running_on_the_device(tmp_path: Path) -> None:
    from mri_io.config import load_config
    from mri_recon.config import RunConfig as ReconConfig
    from mri_recon.run import run
    from mri_recon.training import train as train_recon
    from mri_seg.config import RunConfig as SegConfig
    from mri_seg.run import run as segment
    from mri_seg.training import train as train_seg

    cohort = tiny_cohort(tmp_path / "cohort").path
    common = ["training.steps=3", "training.accelerator=gpu", "training.loggers=[csv]", "training.progress=false"]
    small = ["model.cascades=2", "model.channels=4", "model.pools=2", "model.coil_maps=stored"]
    recon = train_recon(cohort, load_config(ReconConfig, None, [*common, *small]), tmp_path / "varnet")
    seg = train_seg(cohort, load_config(SegConfig, None, [*common, "model.widths=[8,16,32]"]), tmp_path / "unet")
    for device in ("cpu", "cuda"):
        assert run(cohort, checkpoint=recon.checkpoint, name=f"varnet-{device}", device=device).ok
        assert segment(cohort, seg.checkpoint, name=f"unet-{device}", device=device).ok
