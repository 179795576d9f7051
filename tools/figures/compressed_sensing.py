"""Draw the sparse reconstructions of a simulated head: python tools/figures/compressed_sensing.py [picture.png]."""

import sys

import numpy as np
import torch
from panels import draw_errors

from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import espirit
from mri_recon.classical import cg_sense, total_variation, wavelet, zero_filled
from mri_recon.physics.masks.poisson import poisson_mask

SHAPE = (192, 160)
NOISE = 0.02


def compressed_sensing(path: str) -> None:
    """Draw the image and six times its error for four methods, of a sixth of the samples in eight coils."""
    clean = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=SHAPE, coils=8, noise=0.0).kspace[0]
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    mask = torch.from_numpy(poisson_mask(SHAPE, 6, 0.12, seed=0).astype(np.float32))
    kspace = (torch.from_numpy(clean) + NOISE * noise) * mask
    maps = espirit(kspace[:, 86:106, 71:89], SHAPE)
    images = {
        "zero-filled": zero_filled(kspace, maps),
        "CG-SENSE": cg_sense(kspace, mask, maps).image,
        "l1-wavelet": wavelet(kspace, mask, maps).image,
        "total variation": total_variation(kspace, mask, maps).image,
    }
    truth = zero_filled(torch.from_numpy(clean), maps).abs().numpy()
    draw_errors(path, truth, {title: image.abs().numpy() for title, image in images.items()}, 6)


if __name__ == "__main__":
    compressed_sensing(*(sys.argv[1:] or ["docs/images/compressed-sensing.png"]))
