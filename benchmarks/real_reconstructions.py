"""Reconstructions of a real brain scan, prospectively and retrospectively undersampled, beside BART.

The folder of real data is named by MRI_TEST_DATA, by default ../shared/data beside the checkout. The reference is the
fully sampled slice, combined with its own ESPIRiT maps; magnitudes are scaled by least squares, the peak is the maximum
of the reference. Maps of the undersampled data come from its own centre. Prints a table in Markdown; pictures of the
scans go to a folder of your choice, not into the repository.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bart_pics import BartSlice, have_bart
from timing import Table

from mri_io.formats.bart import read_cfl
from mri_recon.calibrate import limited_region
from mri_recon.calibration import espirit
from mri_recon.classical import Reconstruction, cg_sense, homodyne, pocs, total_variation, wavelet, zero_filled
from mri_recon.metrics import least_squares_scale, psnr, ssim
from mri_recon.physics import equispaced_fraction_mask
from mri_recon.physics.masks.poisson import poisson_mask

DATA = Path(os.environ.get("MRI_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
GRID = (5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3, 6e-3)
METHODS: dict[str, tuple[Callable[..., Reconstruction], str]] = {
    "l1-wavelet": (wavelet, "W:6:0"),
    "total variation": (total_variation, "T:6:0"),
}


class Case:
    """Undersampled k-space with its mask and the maps from its centre."""

    def __init__(self, kspace: torch.Tensor, mask: np.ndarray) -> None:
        self.shape = (int(kspace.shape[-2]), int(kspace.shape[-1]))
        self.mask = torch.from_numpy(mask.astype(np.float32))
        self.kspace = kspace * self.mask
        region = limited_region(mask, self.shape, 24)
        self.maps = espirit(self.kspace[(slice(None), *region)], self.shape)


def load(name: str) -> torch.Tensor:
    data = read_cfl(DATA / "kspace_brain8ch" / f"{name}.cfl")
    return torch.from_numpy(np.ascontiguousarray(data[0].transpose(2, 0, 1)))


def brain_cases(full: torch.Tensor) -> dict[str, Case]:
    under = load("und2x2")
    ny, nx = (int(n) for n in full.shape[-2:])
    cases = {"2 x 2 and centre": Case(under, (under != 0).any(dim=0).numpy())}
    for factor in (3, 4):
        cases[f"lines {factor}x"] = Case(full, equispaced_fraction_mask(nx, factor, 0.1, seed=1)[None])
    for factor in (6, 8):
        cases[f"Poisson {factor}x"] = Case(full, poisson_mask((ny, nx), factor, 0.1, seed=1))
    return cases


class Scores:
    """Figures of merit against one reference, and the pictures."""

    def __init__(self, reference: torch.Tensor) -> None:
        self.reference = reference.abs().numpy()[None]
        self.panels: list[tuple[str, np.ndarray]] = [("fully sampled", self.reference[0])]

    def of(self, image: torch.Tensor, title: str | None = None) -> tuple[float, float]:
        """Return PSNR in dB and SSIM; keep the picture when it has a title."""
        magnitude = image.abs().numpy()[None]
        magnitude = least_squares_scale(self.reference, magnitude) * magnitude
        found = psnr(self.reference, magnitude), ssim(self.reference, magnitude)
        if title:
            self.panels.append((f"{title}, {found[0]:.1f} dB", magnitude[0]))
        return found


def add_rows(table: Table, name: str, case: Case, scores: Scores, *, bart: bool) -> None:
    """Add the rows of one case: PSNR and SSIM, the best weight of the grid, and the automatic weight."""
    for method, image in (
        ("zero-filled", zero_filled(case.kspace, case.maps)),
        ("CG-SENSE", cg_sense(case.kspace, case.mask, case.maps).image),
    ):
        found = scores.of(image, f"{name}: {method}")
        table.row(name, method, f"{found[0]:.2f}", f"{found[1]:.3f}", "", "", "")
    for method, (function, _) in METHODS.items():
        best = max((scores.of(_run(function, case, weight).image)[0], weight) for weight in GRID)
        start = time.perf_counter()
        automatic = _run(function, case, None)
        seconds = time.perf_counter() - start
        found = scores.of(automatic.image, f"{name}: {method}")
        row = (name, method, f"{found[0]:.2f}", f"{found[1]:.3f}", f"{automatic.settings['regularisation']:.2g}")
        table.row(*row, f"{best[0]:.2f} at {best[1]:g}", f"{seconds:.1f}", reached=found[0] >= best[0] - 0.3)
    if bart:
        peer = BartSlice(case.kspace, case.maps)
        for method, (_, option) in METHODS.items():
            tried = []
            for weight in GRID:
                seconds = peer.pics("-R", f"{option}:{weight}", "-i", "100")
                tried.append((*scores.of(peer.image()), weight, seconds))
            top = max(tried)
            row = (name, f"BART {method}", "", f"{top[1]:.3f}", "", f"{top[0]:.2f} at {top[2]:g}", f"{top[3]:.1f}")
            table.row(*row)


def _run(function: Callable[..., Reconstruction], case: Case, weight: float | None) -> Reconstruction:
    return function(case.kspace, case.mask, case.maps, regularisation=weight)


def partial_fourier(full: torch.Tensor, maps: torch.Tensor, scores: Scores) -> Table:
    """Return PSNR with a part of the lines, the missing ones before and after the centre."""
    table = Table("kept", "axis", "zero-filled", "homodyne", "POCS, trust 1", "POCS")
    for eighths in (5, 6, 7):
        for axis, name in ((-2, "ky"), (-1, "kx")):
            length = full.shape[axis]
            cells: list[list[str]] = [[], [], [], []]
            for late in (True, False):
                lines = torch.arange(length) < round(eighths / 8 * length)
                mask = (lines.flip(0) if late else lines).float()
                mask = mask[:, None] if axis == -2 else mask[None]
                images = (
                    zero_filled(full * mask, maps),
                    homodyne(full * mask, mask, maps).image,
                    pocs(full * mask, mask, maps, trust=1).image,
                    pocs(full * mask, mask, maps).image,
                )
                for image, cell in zip(images, cells, strict=True):
                    cell.append(f"{scores.of(image)[0]:.1f}")
            table.row(f"{eighths}/8", name, *(", ".join(cell) for cell in cells))
    return table


def prospective() -> list[tuple[str, np.ndarray]]:
    """Return pictures of the scan that has no reference."""
    kspace = torch.from_numpy(np.load(DATA / "kspace_brain8ch_poisson" / "cartesian_ksp.npy"))
    case = Case(kspace, (kspace != 0).any(dim=0).numpy())
    panels = [("Poisson scan: zero-filled", zero_filled(case.kspace, case.maps).abs().numpy())]
    for method, (function, _) in METHODS.items():
        panels.append((f"Poisson scan: {method}", _run(function, case, None).image.abs().numpy()))
    return panels


def draw(panels: list[tuple[str, np.ndarray]], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3 * columns, 3.9 * rows), layout="constrained")
    for number, (title, image) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(image, cmap="gray", vmin=0, vmax=float(np.quantile(image, 0.998)))
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder for pictures, outside the repository")
    parser.add_argument("--cases", nargs="*", help="only those whose name contains one of these")
    parser.add_argument("--no-bart", action="store_true", help="leave out the rows of BART")
    arguments = parser.parse_args()
    full = load("full")
    middle = tuple(slice(n // 2 - 12, n // 2 + 12) for n in full.shape[-2:])
    ny, nx = full.shape[-2:]
    maps = espirit(full[(slice(None), *middle)], (int(ny), int(nx)))
    scores = Scores(zero_filled(full, maps))
    table = Table("case", "method", "PSNR (dB)", "SSIM", "automatic weight", "best of grid (dB)", "time (s)")
    for name, case in brain_cases(full).items():
        if not arguments.cases or any(part in name for part in arguments.cases):
            add_rows(table, name, case, scores, bart=have_bart() and not arguments.no_bart)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        draw(scores.panels, arguments.pictures / "brain.png")
        draw(prospective(), arguments.pictures / "prospective.png")
    if not arguments.cases or "partial Fourier" in arguments.cases:
        print(partial_fourier(full, maps, scores), "\n", flush=True)
    table.print_and_exit("torch")


if __name__ == "__main__":
    main()
