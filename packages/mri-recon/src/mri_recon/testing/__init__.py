"""Helpers for tests of operators and networks; also for packages that build on this one."""

from mri_recon.testing.operators import assert_adjoint, assert_linear, complex_normal

__all__ = ["assert_adjoint", "assert_linear", "complex_normal"]
