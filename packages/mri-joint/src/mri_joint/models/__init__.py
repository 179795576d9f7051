"""Joint networks: pure modules ``(kspace, mask, maps) -> JointOutput``."""

from mri_joint.models.builder import build_network, load_network, warm_start
from mri_joint.models.sequential import JointOutput, ReconstructThenSegment

__all__ = ["JointOutput", "ReconstructThenSegment", "build_network", "load_network", "warm_start"]
