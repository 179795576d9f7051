"""From a model configuration to a network."""

import torch
from torch import nn

from mri_seg.config import ModelConfig, RunConfig
from mri_seg.errors import ConfigError, ShapeError
from mri_seg.networks.normalise import normalise_images
from mri_seg.types import ImageBatch, LogitBatch

__all__ = ["SegmentationNetwork", "build_network", "build_run_network"]


class SegmentationNetwork(nn.Module):
    """Normalise, pad to what the network can halve, score every pixel, cut the padding off.

    Parameters
    ----------
    network
        Maps (batch, channel, y, x) to (batch, label, y, x) where y and x are multiples of `multiple`.
    channels
        Number of input images.
    multiple
        Factor by which the network divides the grid in all.
    """

    def __init__(self, network: nn.Module, channels: int, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.multiple = multiple

    def forward(self, images: ImageBatch) -> LogitBatch:
        """Return label scores of magnitude images in any unit.

        Parameters
        ----------
        images
            (batch, channel, y, x).

        Returns
        -------
        Tensor
            (batch, label, y, x) before softmax.

        Raises
        ------
        ShapeError
            When the number of channels is not that of the network.
        """
        if images.shape[1] != self.channels:
            raise ShapeError(f"images: expected {self.channels} channels, got {images.shape[1]}.")
        height, width = images.shape[-2:]
        pad_y, pad_x = -height % self.multiple, -width % self.multiple
        padding = (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2)
        padded = nn.functional.pad(normalise_images(images), padding)
        logits: torch.Tensor = self.network(padded)
        return logits[..., padding[2] : padding[2] + height, padding[0] : padding[0] + width]


def build_network(config: ModelConfig, *, channels: int, labels: int) -> SegmentationNetwork:
    """Build the network of a configuration.

    Parameters
    ----------
    config
        One of the model configurations.
    channels
        Number of input images.
    labels
        Number of classes with background.
    """
    from monai.networks.nets import UNet

    levels = len(config.widths)
    network = UNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=labels,
        channels=config.widths,
        strides=(2,) * (levels - 1),
        num_res_units=config.residual_units,
        norm="INSTANCE",
        dropout=config.dropout,
    )
    return SegmentationNetwork(network, channels, 2 ** (levels - 1))


def build_run_network(config: RunConfig) -> SegmentationNetwork:
    """Build the network of a run: one channel per input element, one class per label and background.

    Raises
    ------
    ConfigError
        When the run does not say its labels.
    """
    if not config.labels:
        raise ConfigError("labels: expected ids and names of the classes, e.g. {1: liver}, got none.")
    return build_network(config.model, channels=len(config.data.inputs), labels=len(config.labels) + 1)
