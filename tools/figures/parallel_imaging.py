"""Draw GRAPPA and SPIRiT beside CG-SENSE, a simulated head: python tools/figures/parallel_imaging.py [picture.png]."""

import sys

import numpy as np
import torch
from panels import draw_errors

from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import espirit
from mri_recon.classical import cg_sense, grappa, spirit
from mri_recon.physics import equispaced_mask, ifft2c, root_sum_of_squares

SHAPE = (192, 160)
NOISE = 0.005


def parallel_imaging(path: str) -> None:
    """Draw the image and ten times its error for four methods, of every third line and a centre in eight coils."""
    clean = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=SHAPE, coils=8, noise=0.0).kspace[0]
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    mask = torch.from_numpy(equispaced_mask(SHAPE[1], 3, 0.12, seed=0)).float()[None]
    kspace = (torch.from_numpy(clean) + NOISE * noise) * mask
    maps = espirit(kspace[:, 86:106, 71:89], SHAPE)
    inside = (maps != 0).any(dim=1)[0]
    images = {
        "zero-filled": root_sum_of_squares(ifft2c(kspace)),
        "GRAPPA": grappa(kspace, mask).image,
        "SPIRiT": spirit(kspace, mask).image,
        "CG-SENSE": cg_sense(kspace, mask, maps).image.abs(),
    }
    truth = root_sum_of_squares(ifft2c(torch.from_numpy(clean)))
    draw_errors(path, (truth * inside).numpy(), {title: (i * inside).numpy() for title, i in images.items()}, 10)


if __name__ == "__main__":
    parallel_imaging(*(sys.argv[1:] or ["docs/images/parallel-imaging.png"]))
