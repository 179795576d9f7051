"""l1-wavelet reconstruction against BART: 15 coils of 320 x 320, every fourth line and the centre, 100 iterations.

Both are given the same maps and iterations; BART's weight is the best of a grid, ours is the automatic one.
"""

import numpy as np
import torch
from bart_pics import BartSlice, have_bart
from timing import Table, interleaved, options

from mri_io.simulate.brains import simulate_head
from mri_recon.calibration import espirit
from mri_recon.classical import wavelet, zero_filled
from mri_recon.metrics import nmse
from mri_recon.physics import equispaced_fraction_mask

GRID = (1e-3, 2e-3, 4e-3)
NOISE = 0.004


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--matrix", type=int, default=320)
    arguments = parser.parse_args()
    n = arguments.matrix
    clean = simulate_head(np.random.default_rng([0, 0]), slices=1, matrix=(n, n), coils=15, noise=0.0).kspace[0]
    noise = torch.randn(clean.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    full = torch.from_numpy(clean) + NOISE * noise
    mask = torch.from_numpy(equispaced_fraction_mask(n, 4, 0.08, seed=0)).float()[None]
    middle = slice(n // 2 - 12, n // 2 + 12)
    maps = espirit(full[:, middle, middle], (n, n))
    truth, kspace = zero_filled(torch.from_numpy(clean), maps), full * mask

    def error(image: torch.Tensor) -> float:
        return nmse(truth.abs().numpy()[None], image.abs().numpy()[None])

    def run() -> None:
        wavelet(kspace, mask, maps, iterations=100, tolerance=0)

    table = Table()
    ours = wavelet(kspace, mask, maps, iterations=100, tolerance=0)
    if have_bart():
        peer, errors = BartSlice(kspace, maps), {}
        for weight in GRID:
            peer.pics("-R", f"W:6:0:{weight}", "-i", "100")
            errors[weight] = error(peer.image())
        best = min(errors, key=lambda weight: errors[weight])
        times = interleaved(arguments.rounds, lambda: peer.pics("-R", f"W:6:0:{best}", "-i", "100"), run)
        relative = error(ours.image) / errors[best]
        name = f"l1-wavelet, 100 iterations, 15 x {n}^2; NMSE over that of BART"
        table.faster(name, "bart pics -R W", *times, most=0.6, accuracy=relative, gate=1.05)
        print(f"NMSE {error(ours.image):.3g}, automatic weight; BART {errors[best]:.3g} at the best weight {best:g}")
    else:
        table.left_out(f"l1-wavelet, 15 x {n}^2", "bart pics -R W", "BART is not installed")
    table.print_and_exit("torch")


if __name__ == "__main__":
    main()
