"""Draw a frame of a series frame by frame and by locally low rank: python tools/figures/dynamic.py [picture.png]."""

import sys

import numpy as np
import torch
from panels import draw_errors

from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import espirit
from mri_recon.classical import cg_sense, low_rank, zero_filled
from mri_recon.physics import ifft2c
from mri_recon.physics.fourier import fft2c

SHAPE, FRAMES = (128, 112), 16
NOISE = 0.01


def dynamic(path: str) -> None:
    """Draw a frame and five times its error: a head with a beating disc, every fifth line, other ones in each frame."""
    clean = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=SHAPE, coils=8, noise=0.0).kspace[0]
    head = ifft2c(torch.from_numpy(clean))
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    beat = 0.2 + 0.07 * torch.cos(2 * torch.pi * torch.arange(FRAMES) / FRAMES)
    disc = torch.sigmoid((beat[:, None, None] - (y**2 + x**2).sqrt()) * 40)
    series = fft2c(head * (1 + 0.8 * disc[:, None]))
    mask = torch.zeros(FRAMES, 1, 1, SHAPE[1])
    for frame in range(FRAMES):
        mask[frame, ..., frame % 5 :: 5] = 1
    mask[..., SHAPE[1] // 2 - 4 : SHAPE[1] // 2 + 4] = 1
    noise = torch.randn(series.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace = (series + NOISE * noise) * mask
    merged = kspace.sum(dim=0) / mask.sum(dim=0).clamp_min(1)
    maps = espirit(merged[:, 54:74, 46:66], SHAPE)
    images = {
        "fully sampled": zero_filled(series + NOISE * noise, maps),
        "zero-filled": zero_filled(kspace, maps),
        "CG-SENSE": cg_sense(kspace, mask, maps).image,
        "locally low rank": low_rank(kspace, mask, maps).image,
    }
    truth = zero_filled(series, maps).abs().numpy()
    draw_errors(path, truth[0], {title: image[0].abs().numpy() for title, image in images.items()}, 5)


if __name__ == "__main__":
    dynamic(*(sys.argv[1:] or ["docs/images/dynamic.png"]))
