"""A reconstruction network whose magnitude image feeds a segmentation network, differentiable from end to end."""

from typing import NamedTuple

from torch import Tensor, nn

from mri_joint.types import ImageBatch, KspaceBatch, LogitBatch, MapBatch

__all__ = ["JointOutput", "ReconstructThenSegment"]


class JointOutput(NamedTuple):
    """What the joint network returns.

    Attributes
    ----------
    image
        Reconstruction, (batch, y, x).
    logits
        Label scores before softmax, (batch, label, y, x).
    """

    image: ImageBatch
    logits: LogitBatch


class ReconstructThenSegment(nn.Module):
    r"""Compute :math:`\hat x = R(y, M, S)` and :math:`N(|\hat x|)`.

    Parameters
    ----------
    reconstruction
        R, a module ``(kspace, mask, maps)`` whose output has ``image``.
    segmentation
        N, a module from magnitudes (batch, 1, y, x) in any unit to scores (batch, label, y, x).
    """

    def __init__(self, reconstruction: nn.Module, segmentation: nn.Module) -> None:
        super().__init__()
        self.reconstruction = reconstruction
        self.segmentation = segmentation

    def forward(self, kspace: KspaceBatch, mask: Tensor, maps: MapBatch | None = None) -> JointOutput:
        """Reconstruct, then segment.

        Parameters
        ----------
        kspace
            (batch, coil, ky, kx), zero outside `mask`.
        mask
            Broadcastable to (batch, coil, ky, kx), true where sampled.
        maps
            (batch, map, coil, y, x), None for networks that estimate them.

        Returns
        -------
        JointOutput
            Image and label scores on the grid of the image.
        """
        image = self.reconstruction(kspace, mask, maps).image
        return JointOutput(image, self.segmentation(image.abs()[:, None]))
