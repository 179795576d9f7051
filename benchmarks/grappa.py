"""GRAPPA with 5 x 5 kernels against pygrappa: processor time against cgrappa, error against mdgrappa.

    make bench-grappa          # or: python benchmarks/grappa.py [--rounds N] [--slices N] --peer-python PYTHON

Fifteen slices of 320 x 320, 8 coils, noise 0.004 of the peak, R = 4: lines with 8 % centre, and 2 x 2 with a 24 x 24
centre. NMSE is that of the root sum of squares of the noisy, fully sampled scan without its noise. Exit status 1 when a
target is missed.
"""

import resource
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from timing import PeerProcess, Table, cpu_seconds, interleaved, options, peer_python

SIZE, COILS, NOISE = 320, 8, 0.004


def _peer(folder: Path, name: str) -> Callable[[], np.ndarray]:
    import pygrappa

    # cgrappa takes numbers of double precision alone.
    kspace, centre = (np.load(folder / f"{each}.npy").astype(np.complex128) for each in ("kspace", "centre"))
    function = getattr(pygrappa, name)
    return lambda: np.stack(
        [
            function(k, np.ascontiguousarray(c), kernel_size=(5, 5), coil_axis=-1)
            for k, c in zip(kspace, centre, strict=True)
        ]
    )


def cgrappa(folder: Path) -> Callable[[], np.ndarray]:
    return _peer(folder, "cgrappa")


def mdgrappa(folder: Path) -> Callable[[], np.ndarray]:
    return _peer(folder, "mdgrappa")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--slices", type=int, default=15)
    arguments = parser.parse_args()
    # Not at the top: the peer's Python imports this file, too.
    import torch

    from mri_io.simulate import ellipse_phantom, random_head
    from mri_recon.classical.grappa import automatic_kernel, grappa_kspace
    from mri_recon.physics import calibration_region, equispaced_mask, ifft2c, root_sum_of_squares

    rng = np.random.default_rng(0)
    heads = [ellipse_phantom(random_head(rng), (SIZE, SIZE), coils=COILS, rng=rng) for _ in range(arguments.slices)]
    clean = torch.from_numpy(np.stack([head.kspace for head in heads]))
    reference = root_sum_of_squares(ifft2c(clean))
    level = NOISE * float(reference.max())
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(0))
    noisy = clean + level * noise
    lines = np.broadcast_to(equispaced_mask(SIZE, 4, 0.08, seed=0)[None] != 0, (SIZE, SIZE)).copy()
    grid = np.zeros((SIZE, SIZE), dtype=bool)
    grid[::2, ::2] = True
    grid[SIZE // 2 - 12 : SIZE // 2 + 12, SIZE // 2 - 12 : SIZE // 2 + 12] = True

    def nmse(kspace: torch.Tensor) -> float:
        return float((root_sum_of_squares(ifft2c(kspace)) - reference).square().sum() / reference.square().sum())

    table, peer = Table(), peer_python(arguments.peer_python)
    for name, mask in (("lines", lines), ("2 x 2", grid)):
        under, pattern = noisy * torch.from_numpy(mask), torch.from_numpy(mask)
        size = automatic_kernel(under, pattern)
        best = nmse(grappa_kspace(under, pattern))
        own = nmse(grappa_kspace(under, pattern, kernel=(5, 5)))
        print(f"{name}: NMSE with 5 x 5 {own:.3g}, with the automatic kernel {size} {best:.3g}", flush=True)
        if peer is None:
            table.left_out(f"GRAPPA, {name}", "pygrappa", "name its Python: --peer-python")
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            last = under.permute(0, 2, 3, 1).contiguous().numpy()
            np.save(folder / "kspace.npy", last)
            np.save(folder / "centre.npy", last[(slice(None), *calibration_region(mask))])
            accurate = PeerProcess(peer, Path(__file__), "mdgrappa", folder, "cpu")
            accurate()
            theirs = nmse(torch.from_numpy(accurate.close()).permute(0, 3, 1, 2))
            fast = PeerProcess(peer, Path(__file__), "cgrappa", folder, "cpu")
            job = partial(grappa_kspace, under, pattern, kernel=(5, 5))
            peers, mine = interleaved(arguments.rounds, fast, job, clock=cpu_seconds)
            fast.close()
        row = {"most": 1.0, "accuracy": own, "gate": round(theirs, 6)}
        table.faster(f"GRAPPA, {name}, CPU; NMSE against mdgrappa", "cgrappa", peers, mine, **row)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    table.print_and_exit("torch", "numpy")


if __name__ == "__main__":
    main()
