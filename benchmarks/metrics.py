"""SSIM beside scikit-image: processor time for 30 slices of 320 x 320, and the difference.

python benchmarks/metrics.py [--rounds 7]
"""

import numpy as np
from skimage.metrics import structural_similarity
from timing import Table, cpu_seconds, interleaved, options

from mri_recon.metrics import ssim

SLICES, SIZE = 30, 320


def main() -> None:
    """Compare and print the table."""
    rounds = options(__doc__).parse_args().rounds
    rng = np.random.default_rng(0)
    truth = rng.random((SLICES, SIZE, SIZE)) * np.hanning(SIZE)[:, None] * np.hanning(SIZE)
    image = truth + 0.05 * rng.standard_normal(truth.shape)
    top = float(truth.max())

    def peer() -> list[float]:
        return [structural_similarity(t, i, data_range=top) for t, i in zip(truth, image, strict=True)]

    table = Table()
    theirs, ours = interleaved(rounds, peer, lambda: [ssim(truth, image)], clock=cpu_seconds)
    difference = abs(float(np.mean(peer())) - ssim(truth, image))
    name = f"P9 SSIM, {SLICES} x {SIZE}^2, processor time"
    table.faster(name, "scikit-image", theirs, ours, most=0.8, accuracy=difference, gate=1e-6)
    table.print_and_exit("numpy", "scikit-image", "scipy")


if __name__ == "__main__":
    main()
