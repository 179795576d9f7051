"""BART's reconstruction of one slice, for the rows of other benchmarks."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mri_io.formats.bart import read_cfl

__all__ = ["BartSlice", "have_bart"]


def have_bart() -> bool:
    """Return whether the command is installed."""
    return shutil.which("bart") is not None


def _write(path: Path, array: np.ndarray) -> None:
    sizes = " ".join(map(str, (*array.shape, *(1,) * (16 - array.ndim))))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


class BartSlice:
    """k-space (coil, ky, kx) and maps (map, coil, y, x) of a slice as files, for `pics`."""

    def __init__(self, kspace: torch.Tensor, maps: torch.Tensor) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        _write(self.folder / "k", kspace.numpy().transpose(1, 2, 0)[None])
        _write(self.folder / "s", maps[0].numpy().transpose(1, 2, 0)[None])
        self.seen = (maps[0] != 0).any(dim=0)

    def pics(self, *options: str) -> float:
        """Run ``bart pics`` with options and the scale of the data; return its seconds, its start counted in."""
        start = time.perf_counter()
        command = ["bart", "pics", "-S", *options, "k", "s", "x"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return time.perf_counter() - start

    def image(self) -> torch.Tensor:
        """Return the last image (y, x), zero where no coil sees anything."""
        image = torch.from_numpy(np.squeeze(read_cfl(self.folder / "x.cfl")).copy())
        return torch.where(self.seen, image, torch.zeros_like(image))
