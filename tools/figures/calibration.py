"""Draw coil maps by every method, of a simulated head: python tools/figures/calibration.py [picture.png]."""

import sys

import numpy as np
import torch
from matplotlib.figure import Figure

from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import EspiritConfig, espirit, inati, jsense, low_resolution, walsh

SHAPE = (160, 128)
METHODS = {
    "ESPIRiT": lambda k: espirit(k, SHAPE),
    "soft": lambda k: espirit(k, SHAPE, EspiritConfig(soft=True, crop=0.9)),
    "Walsh": lambda k: walsh(k, SHAPE),
    "Inati": lambda k: inati(k, SHAPE),
    "low resolution": lambda k: low_resolution(k, SHAPE),
    "JSENSE": lambda k: jsense(k, SHAPE),
}


def calibration(path: str) -> None:
    """Draw magnitude and phase of the map of one of eight coils."""
    kspace = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=SHAPE, coils=8, noise=0.01).kspace[0]
    centre = torch.from_numpy(kspace)[:, 68:92, 52:76]
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panels = figure.subplots(2, len(METHODS))
    for (title, method), (upper, lower) in zip(METHODS.items(), panels.T, strict=True):
        maps = method(centre)[0, 2].numpy()
        upper.imshow(abs(maps), cmap="gray", vmin=0, vmax=0.8)
        lower.imshow(np.where(maps != 0, np.angle(maps), np.nan), cmap="twilight", vmin=-np.pi, vmax=np.pi)
        upper.set_title(title, fontsize=9)
        for axes in (upper, lower):
            axes.set_xticks([])
            axes.set_yticks([])
    figure.savefig(path, dpi=68, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    calibration(*(sys.argv[1:] or ["docs/images/calibration.png"]))
