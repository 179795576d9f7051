"""Label maps from images: whole slices, or windows where slices are larger than wanted."""

from pathlib import Path

import torch

from mri_io.config import validate_config
from mri_io.training import Checkpoint, load_checkpoint
from mri_seg.config import RunConfig
from mri_seg.networks import SegmentationNetwork, build_run_network
from mri_seg.types import ImageBatch, LabelBatch

__all__ = ["BATCH_SIZE", "load_network", "predict"]

BATCH_SIZE = 8
"""Slices or windows at once."""


def load_network(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[SegmentationNetwork, RunConfig, Checkpoint]:
    """Load a trained network from its checkpoint, which needs nothing else.

    Returns
    -------
    network, config, checkpoint
        The network is in evaluation mode on `device`.

    Raises
    ------
    FormatError
        When the file is no checkpoint of a segmentation run.
    """
    checkpoint = load_checkpoint(path, kind="seg")
    config = validate_config(RunConfig, checkpoint.config, where=str(path))
    network = build_run_network(config)
    network.load_state_dict(checkpoint.part("network"))
    return network.to(device).eval(), config, checkpoint


@torch.inference_mode()
def predict(
    network: SegmentationNetwork,
    images: ImageBatch,
    *,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    batch_size: int = BATCH_SIZE,
) -> LabelBatch:
    """Return the most likely label of every pixel.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        Magnitudes, (slice, channel, y, x), on any device.
    window
        Size (y, x) of windows that slide over larger slices; scores of overlapping windows are averaged with
        Gaussian weights. None takes whole slices, which is right for a network trained on whole slices:
        normalisation then sees the same field of view.
    overlap
        Of neighbouring windows.
    batch_size
        Slices or windows at once.

    Returns
    -------
    Tensor
        int64 (slice, y, x), on the images' device.
    """
    from monai.inferers import SlidingWindowInferer

    device = next(network.parameters()).device
    if window is None:
        parts = [network(block.to(device)).argmax(dim=1) for block in torch.split(images, batch_size)]
        return torch.cat(parts).to(images.device)
    inferer = SlidingWindowInferer(window, sw_batch_size=batch_size, overlap=overlap, mode="gaussian")
    parts = [torch.as_tensor(inferer(image[None].to(device), network)).argmax(dim=1) for image in images]
    return torch.cat(parts).to(images.device)
