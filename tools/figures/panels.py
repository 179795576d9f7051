"""What the pictures of reconstructions share: images over their errors."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mri_recon.metrics import difference_map, psnr

__all__ = ["draw_errors"]


def draw_errors(path: str, truth: np.ndarray, images: Mapping[str, np.ndarray], factor: int) -> None:
    """Draw magnitudes (y, x) by title, with the PSNR, over their errors times a factor, on the scale of the truth."""
    aspect = truth.shape[0] / truth.shape[1]
    width = 6.6 / len(images)
    figure = Figure(figsize=(6.6, 2 * width * aspect + 0.75), layout="constrained")
    panels = figure.subplots(2, len(images))
    top = float(np.quantile(truth, 0.998))
    for (title, image), (upper, lower) in zip(images.items(), panels.T, strict=True):
        upper.imshow(image, cmap="gray", vmin=0, vmax=top)
        lower.imshow(difference_map(truth, image, factor, top), cmap="gray", vmin=0, vmax=1)
        upper.set_title(f"{title}\n{psnr(truth[None], image[None]):.1f} dB", fontsize=9)
        lower.set_xlabel(f"error x {factor}", fontsize=8)
        for axes in (upper, lower):
            axes.set_xticks([])
            axes.set_yticks([])
    figure.savefig(path, dpi=68, pil_kwargs={"optimize": True})
