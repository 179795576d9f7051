"""Helpers for tests of everything that builds on the store: tiny cohorts, damage on purpose."""

from mri_io.testing.cohorts import tiny_cohort
from mri_io.testing.damage import flip_bit, full_disk, truncate

__all__ = ["flip_bit", "full_disk", "tiny_cohort", "truncate"]
