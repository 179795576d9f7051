"""Parity with fastMRI; the golden files were computed with it (golden/PROVENANCE.json)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_recon.losses import SsimLoss
from mri_recon.metrics import nmse, psnr, ssim
from mri_recon.networks import VarNet
from mri_recon.physics import MASKS

GOLDEN = Path(__file__).parent / "golden"
MASK_ROWS = json.loads((GOLDEN / "fastmri_masks.json").read_text())


@pytest.mark.parametrize("row", MASK_ROWS, ids=lambda row: f"{row['kind']}-{row['columns']}-{row['acceleration']}")
def test_masks_are_bit_equal_for_the_same_seed(row: dict) -> None:
    seed = tuple(row["seed"]) if isinstance(row["seed"], list) else row["seed"]
    mask = MASKS[row["kind"]](row["columns"], row["acceleration"], row["center_fraction"], seed)
    assert "".join(map(str, mask.tolist())) == row["mask"]


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "fastmri_varnet.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def network(golden: dict[str, torch.Tensor]) -> VarNet:
    net = VarNet(cascades=2, channels=4, pools=2, sens_channels=3, sens_pools=2, combination="rss").eval()
    state = {key.removeprefix("state/"): value for key, value in golden.items() if key.startswith("state/")}
    net.load_state_dict(state)  # strict: the keys are fastMRI's, unchanged
    return net


def test_varnet_gives_the_output_of_fastmri_for_its_weights(network: VarNet, golden: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        out = network(golden["kspace"], golden["mask"]).image
    error = torch.linalg.vector_norm(out - golden["output"]) / torch.linalg.vector_norm(golden["output"])
    assert float(error) < 1e-5


def test_estimated_coil_maps_are_those_of_fastmri(network: VarNet, golden: dict[str, torch.Tensor]) -> None:
    with torch.inference_mode():
        maps = network.sens_net(golden["kspace"], golden["mask"])
    torch.testing.assert_close(maps, golden["maps"], rtol=1e-4, atol=1e-5)


def test_loss_and_metrics_are_those_of_fastmri() -> None:
    with np.load(GOLDEN / "fastmri_losses.npz") as file:
        target, image, peak = file["target"], file["image"], file["peak"]
        loss = SsimLoss()(torch.from_numpy(image), torch.from_numpy(target), torch.from_numpy(peak))
        assert float(loss) == pytest.approx(float(file["ssim_loss"]), rel=1e-5)
        assert nmse(target, image) == pytest.approx(float(file["nmse"]), rel=1e-6)
        assert psnr(target, image) == pytest.approx(float(file["psnr"]), rel=1e-6)


def test_ssim_is_that_of_scikit_image_slice_by_slice() -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(1)
    target = rng.random((3, 40, 33))
    image = target + 0.1 * rng.standard_normal(target.shape)
    peak = target.max()
    expected = np.mean([structural_similarity(t, i, data_range=peak) for t, i in zip(target, image, strict=True)])
    assert ssim(target, image) == pytest.approx(expected, abs=1e-6)
