"""Draw partial Fourier reconstructions of a simulated head: python tools/figures/partial_fourier.py [picture.png]."""

import sys

import numpy as np
import torch
from panels import draw_errors

from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import espirit
from mri_recon.classical import homodyne, pocs, zero_filled

SHAPE = (192, 160)
NOISE = 0.005


def partial_fourier(path: str) -> None:
    """Draw the image and eight times its error for three methods, of the last five eighths of the lines."""
    clean = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=SHAPE, coils=8, noise=0.0).kspace[0]
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(SHAPE[0]) >= 3 * SHAPE[0] // 8).float()[:, None]
    kspace = (torch.from_numpy(clean) + NOISE * noise) * mask
    maps = espirit(kspace[:, 86:106, 71:89], SHAPE)
    images = {
        "zero-filled": zero_filled(kspace, maps),
        "homodyne": homodyne(kspace, mask, maps).image,
        "POCS": pocs(kspace, mask, maps).image,
    }
    truth = zero_filled(torch.from_numpy(clean), maps).abs().numpy()
    draw_errors(path, truth, {title: image.abs().numpy() for title, image in images.items()}, 8)


if __name__ == "__main__":
    partial_fourier(*(sys.argv[1:] or ["docs/images/partial-fourier.png"]))
