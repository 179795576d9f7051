"""Solvers of the convex problems behind the reconstructions, batched: each element has its own steps and end."""

from mri_recon.classical.solvers.admm import Penalty, admm
from mri_recon.classical.solvers.batched import Solution, dot, norm
from mri_recon.classical.solvers.fista import fista
from mri_recon.classical.solvers.proximal import soft_threshold

__all__ = ["Penalty", "Solution", "admm", "dot", "fista", "norm", "soft_threshold"]
