"""What segmenting a volume holds in memory at most, beside a process of mri-io.

Measured with 8 to 200 slices of 256 x 256 to 640 x 320 and networks of 8 to 64 channels: at most what is estimated,
and more than half of it.
"""

import math

from mri_seg.config import ModelConfig
from mri_seg.inference import BATCH_SIZE

__all__ = ["LIBRARIES", "segmentation_memory"]

LIBRARIES = 460 * 10**6
"""Torch and MONAI imported, and what their first operations keep."""
_BLOCK = 8
"""Channels that a convolution fills up to at least."""


def segmentation_memory(
    shape: tuple[int, ...],
    model: ModelConfig,
    *,
    labels: int,
    channels: int = 1,
    window: tuple[int, int] | None = None,
    weights: int = 0,
) -> int:
    """Return the bytes that segmenting a volume needs.

    Of every pixel its complex inputs, their magnitudes, twice, and the labels before they are written; of the slices
    or windows that go through the network at once the features of its first level and the scores.

    Parameters
    ----------
    shape
        Of the images, (slice, y, x).
    model
        Configuration of the network.
    labels
        Number of classes with background.
    channels
        Number of input images.
    window
        See `mri_seg.inference.predict`.
    weights
        Bytes of the weights. They are held in the checkpoint and in the network, each by who starts the work, too.
    """
    slices, pixels = math.prod(shape[:-2]), math.prod(shape[-2:])
    scores = max(labels, _BLOCK)
    volume = slices * pixels * (16 * channels + 24)
    at_once = BATCH_SIZE * math.prod(window) if window else min(slices, BATCH_SIZE) * pixels
    features = 4 * at_once * (2 * model.widths[0] + 4 * scores)
    merged = 4 * 3 * pixels * labels if window else 0
    return LIBRARIES + 4 * weights + volume + features + merged
