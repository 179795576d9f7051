"""Damage files as failing hardware does."""

from pathlib import Path

__all__ = ["flip_bit"]


def flip_bit(path: Path, position: int) -> None:
    """Flip one bit of a file, counted from its first; the file keeps its size."""
    data = bytearray(path.read_bytes())
    data[position // 8] ^= 1 << (position % 8)
    path.write_bytes(data)
