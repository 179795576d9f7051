"""Error of the classical reconstructions on simulated scans, beside BART on the same data and maps.

Every fourth line and a centre of 8 %, noise of 0.004 per coil: a head of 15 x 320 x 320 and ellipses of 15 x 640 x 368.
NMSE and SSIM of magnitudes over the whole image, against the noise-free image combined with the same maps, scaled by
least squares. Fails when a sparse reconstruction has more than 1.1 times the NMSE of BART's at the weight 0.001, or
when the methods are not in the order that is expected of them; the ratio to the best of BART's weights is shown, too.
"""

import argparse
from itertools import pairwise

import numpy as np
import torch
from bart_pics import BartSlice, have_bart
from timing import Table

from mri_io.simulate import ellipse_phantom, shepp_logan
from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import espirit
from mri_recon.classical import cg_sense, total_variation, wavelet, zero_filled
from mri_recon.metrics import least_squares_scale, nmse, ssim
from mri_recon.physics import equispaced_fraction_mask

NOISE = 0.004
WEIGHTS = (1e-3, 2e-3, 4e-3)


def scans() -> dict[str, torch.Tensor]:
    """Return noise-free k-space."""
    head = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=(320, 320), coils=15, noise=0.0).kspace[0]
    ellipses = ellipse_phantom(shepp_logan(), (640, 368), coils=15, supersampling=2).kspace
    return {"head 15 x 320 x 320": torch.from_numpy(head), "ellipses 15 x 640 x 368": torch.from_numpy(ellipses)}


def rows(table: Table, name: str, clean: torch.Tensor, *, bart: bool) -> None:
    """Add the rows of one scan."""
    ny, nx = (int(n) for n in clean.shape[-2:])
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    full = clean.to(torch.complex64) + NOISE * noise
    line = equispaced_fraction_mask(nx, 4, 0.08, seed=0)
    mask, width = torch.from_numpy(line).float()[None], round(0.08 * nx)
    kspace = full * mask
    columns = slice(nx // 2 - min(width, 24) // 2, nx // 2 + min(width, 24) // 2)
    maps = espirit(kspace[:, ny // 2 - 12 : ny // 2 + 12, columns], (ny, nx))
    truth = zero_filled(clean.to(torch.complex64), maps).abs().numpy()[None]
    found: dict[str, float] = {}

    def add(method: str, image: torch.Tensor) -> None:
        magnitude = image.abs().numpy()[None]
        magnitude = least_squares_scale(truth, magnitude) * magnitude
        found[method] = nmse(truth, magnitude)
        table.row(name, method, f"{found[method]:.3g}", f"{ssim(truth, magnitude):.3f}")

    add("fully sampled", zero_filled(full, maps))
    add("zero-filled", zero_filled(kspace, maps))
    add("CG-SENSE", cg_sense(kspace, mask, maps).image)
    add("l1-wavelet", wavelet(kspace, mask, maps).image)
    add("total variation", total_variation(kspace, mask, maps).image)
    if bart:
        peer = BartSlice(kspace, maps)
        for method, option in (("l1-wavelet", "W:6:0"), ("total variation", "T:6:0")):
            for weight in WEIGHTS:
                peer.pics("-R", f"{option}:{weight}", "-i", "100")
                add(f"BART {method} {weight:g}", peer.image())
            usual = found[f"BART {method} {WEIGHTS[0]:g}"]
            best = min(value for key, value in found.items() if key.startswith(f"BART {method}"))
            ratio = found[method] / usual
            table.row(name, f"{method} over BART at {WEIGHTS[0]:g}", f"{ratio:.2f}", "", reached=ratio <= 1.1)
            table.row(name, f"{method} over BART's best", f"{found[method] / best:.2f}", "")
    order = ["zero-filled", "CG-SENSE", "l1-wavelet", "total variation"]
    right = all(found[a] > found[b] for a, b in pairwise(order))
    table.row(name, "each better than the one before", str(right).lower(), "", reached=right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", nargs="*", help="only those whose name contains one of these")
    parser.add_argument("--no-bart", action="store_true", help="leave out the rows of BART")
    arguments = parser.parse_args()
    table = Table("scan", "method", "NMSE", "SSIM")
    for name, clean in scans().items():
        if not arguments.scans or any(part in name for part in arguments.scans):
            rows(table, name, clean, bart=have_bart() and not arguments.no_bart)
    table.print_and_exit("torch")


if __name__ == "__main__":
    main()
