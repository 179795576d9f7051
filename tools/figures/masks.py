"""Draw the patterns of all kinds of masks: python tools/figures/masks.py [docs/images/masks.png]."""

import sys

import numpy as np
from matplotlib.figure import Figure

from mri_recon.physics.masks import MASKS, acceleration

SIZES = {"frame": 24, "ky": 96, "kx": 80}


def masks(path: str) -> None:
    """Draw one panel per kind, at an acceleration of 4, with the acceleration that it achieves."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(2, 7).ravel()
    for panel, (name, kind) in zip(panels, MASKS.items(), strict=False):
        mask = kind.make(SIZES, kind.config())
        series = len(kind.dims) == 2 and kind.dims[0] == "frame"
        shown = np.broadcast_to(mask, (SIZES["ky"], SIZES["kx"])) if mask.ndim == 1 else mask.T if series else mask
        panel.imshow(shown, cmap="gray", interpolation="nearest", aspect="auto" if series else "equal")
        panel.set_title(f"{name}\nR = {acceleration(mask):.2f}", fontsize=8)
        panel.set_xlabel("frame" if series else "kx", fontsize=7)
        panel.set_ylabel("ky", fontsize=7)
        panel.set_xticks([])
        panel.set_yticks([])
    for panel in panels[len(MASKS) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    masks(*(sys.argv[1:] or ["docs/images/masks.png"]))
