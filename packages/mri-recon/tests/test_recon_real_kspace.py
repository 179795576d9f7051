"""GRAPPA, SPIRiT, homodyne and POCS on real raw data; the reference is the full slice, combined by its own maps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mri_recon.calibration import espirit
from mri_recon.classical.grappa import grappa
from mri_recon.classical.spirit import spirit
from mri_recon.metrics import least_squares_scale, psnr
from mri_recon.physics import calibration_region, combine, ifft2c

pytestmark = pytest.mark.realdata


def load(folder: Path, name: str) -> torch.Tensor:
    from mri_io.formats.bart import read_cfl

    data = read_cfl(folder / "kspace_brain8ch" / f"{name}.cfl")
    return torch.from_numpy(np.ascontiguousarray(data[0].transpose(2, 0, 1)))


def quality(reference: torch.Tensor, image: torch.Tensor) -> float:
    """Return the PSNR of a magnitude, matched in scale by least squares; the peak is that of the reference."""
    known, found = reference.abs().numpy()[None], image.abs().numpy()[None]
    return psnr(known, least_squares_scale(known, found) * found)


@pytest.fixture(scope="module")
def brain(real_data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return full k-space, the maps of the full data, and the image."""
    full = load(real_data, "full")
    maps = espirit(full[:, 103:127, 78:102], (230, 180))
    return full, maps, combine(ifft2c(full), maps)[0]


def test_prospective_two_by_two(real_data: Path, brain: tuple[torch.Tensor, ...]) -> None:
    under = load(real_data, "und2x2")
    mask = under.abs().sum(dim=0) > 0
    maps = espirit(under[(slice(None), *calibration_region(mask.numpy()))], (230, 180))
    assert quality(brain[2], grappa(under, mask, maps).image) >= 36.2  # CG-SENSE of BART and SigPy: 35.9
    assert quality(brain[2], spirit(under, mask, maps).image) >= 36.4
