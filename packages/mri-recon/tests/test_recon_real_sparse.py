"""Sparse reconstructions of a real scan reach what BART reaches with its best weight, with the automatic one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.formats.bart import read_cfl
from mri_recon.calibration import espirit
from mri_recon.classical import total_variation, wavelet, zero_filled
from mri_recon.metrics import least_squares_scale, psnr
from mri_recon.physics import calibration_region


@pytest.mark.realdata
def test_a_prospective_brain_scan_reaches_the_established_tools(real_data: Path) -> None:
    def load(name: str) -> torch.Tensor:
        data = read_cfl(real_data / "kspace_brain8ch" / f"{name}.cfl")
        return torch.from_numpy(np.ascontiguousarray(data[0].transpose(2, 0, 1)))

    full, under = load("full"), load("und2x2")
    pattern = (under != 0).any(dim=0).numpy()
    reference = zero_filled(full, espirit(full[:, 103:127, 78:102], (230, 180))).abs().numpy()[None]
    maps = espirit(under[(slice(None), *calibration_region(pattern))], (230, 180))
    mask = torch.from_numpy(pattern).float()

    def score(image: torch.Tensor) -> float:
        magnitude = image.abs().numpy()[None]
        return psnr(reference, least_squares_scale(reference, magnitude) * magnitude)

    assert score(wavelet(under, mask, maps).image) >= 38.2  # BART at its best weight: 38.0
    assert score(total_variation(under, mask, maps).image) >= 38.5  # BART: 38.4
