"""Cohorts without any download: an analytic phantom and simulated scans of real anatomy, as raw files."""

from mri_io.simulate.brains import simulate_brains
from mri_io.simulate.phantom import (
    Ellipse,
    PhantomScan,
    ellipse_phantom,
    random_head,
    shepp_logan,
    simulate_phantoms,
)

__all__ = [
    "Ellipse",
    "PhantomScan",
    "ellipse_phantom",
    "random_head",
    "shepp_logan",
    "simulate_brains",
    "simulate_phantoms",
]
