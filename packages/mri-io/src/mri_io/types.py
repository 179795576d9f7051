"""Types that several packages share."""

from typing import Literal

__all__ = ["Part"]

Part = Literal["train", "val", "test"]
"""A part of a split."""
