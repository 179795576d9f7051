"""Helpers for tests: tiny configurations and trained starting points."""

from mri_joint.testing.tiny import tiny_config, tiny_starts

__all__ = ["tiny_config", "tiny_starts"]
