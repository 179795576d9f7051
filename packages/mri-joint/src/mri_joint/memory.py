"""What reconstructing and segmenting a volume holds in memory at most, beside a process of mri-io."""

import math

from mri_io.store import Volume
from mri_joint.config import RunConfig
from mri_recon.memory import reconstruction_memory
from mri_seg.memory import segmentation_memory

__all__ = ["joint_memory"]


def joint_memory(volume: Volume, config: RunConfig, weights: int = 0) -> int:
    """Return the bytes that a joint network needs for a volume.

    It is reconstructed first and segmented then. Both needs count: what the first gives back in pieces is not always of
    use to the second.

    Parameters
    ----------
    volume
        Its k-space counts.
    config
        Of the network.
    weights
        Bytes of the weights; see `mri_seg.memory.segmentation_memory`.
    """
    kspace = volume["kspace"].shape
    shape = (math.prod(kspace[:-3]), *kspace[-2:])
    labels = len(config.labels or ()) + 1
    segmentation = segmentation_memory(shape, config.segmentation, labels=labels, weights=weights)
    return segmentation + reconstruction_memory(volume, config.reconstruction) + 8 * math.prod(shape)
