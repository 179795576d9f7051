"""Sampling masks against fastMRI's and SigPy's, in turns.

fastMRI makes the same masks, bit for bit: 100 of 368 lines, of seeds 0 .. 99, in the Python of ``--peer-python``.
Poisson discs are made of 320 x 320 points with a centre of 24 x 24; SigPy's are compiled before the first round.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timing import PeerProcess, Table, cpu_seconds, interleaved, options, peer_python

LINES, SEEDS, R, FRACTION = 368, 100, 4, 0.08
KINDS = {
    "random": "RandomMaskFunc",
    "equispaced": "EquiSpacedMaskFunc",
    "equispaced-fraction": "EquispacedMaskFractionFunc",
}
SHAPE, CENTRE = (320, 320), 24


def _fastmri(name: str) -> Callable[[], np.ndarray]:
    """Return the job of a class of fastMRI's; its file is loaded alone, without what the package imports."""
    spec = importlib.util.find_spec("fastmri")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "data" / "subsample.py"
    file = importlib.util.spec_from_file_location("subsample", path)
    assert file is not None
    assert file.loader is not None
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    make = getattr(module, name)([FRACTION], [R])
    return lambda: np.stack([make((1, LINES, 2), seed=seed)[0].numpy().ravel() for seed in range(SEEDS)])


def fastmri_random(folder: Path) -> Callable[[], np.ndarray]:
    """Make fastMRI's masks of random lines."""
    return _fastmri(KINDS["random"])


def fastmri_equispaced(folder: Path) -> Callable[[], np.ndarray]:
    """Make fastMRI's masks of equispaced lines."""
    return _fastmri(KINDS["equispaced"])


def fastmri_equispaced_fraction(folder: Path) -> Callable[[], np.ndarray]:
    """Make fastMRI's masks of equispaced lines, the acceleration exact."""
    return _fastmri(KINDS["equispaced-fraction"])


def lines(table: Table, python: str | None, rounds: int, folder: Path) -> None:
    """Compare masks of lines with fastMRI's, and their time."""
    from mri_recon.physics.masks import MASKS

    for kind in KINDS:
        if python is None:
            table.left_out(kind, "fastMRI", "no --peer-python")
            continue

        def own(kind: str = kind) -> np.ndarray:
            return np.stack([MASKS[kind](LINES, R, FRACTION, seed) for seed in range(SEEDS)])

        peer = PeerProcess(python, Path(__file__), f"fastmri_{kind.replace('-', '_')}", folder)
        theirs, ours = interleaved(rounds, peer, lambda: (own(), None)[1])
        wrong = float(np.abs(peer.close() - own()).max())
        table.faster(f"{SEEDS} x {kind}", "fastMRI", theirs, ours, most=1.0, accuracy=wrong, gate=0)


def poisson(table: Table, rounds: int) -> None:
    """Compare Poisson discs with SigPy's: processor time, and how far the acceleration is from what was asked for."""
    import sigpy.mri

    from mri_recon.physics.masks import acceleration, poisson_mask

    sigpy.mri.poisson((64, 64), 4)
    for r in (4, 8):
        seeds = iter(range(2 * rounds))
        other = iter(range(2 * rounds))
        found = []
        theirs, ours = interleaved(
            rounds,
            lambda r=r, seeds=seeds: (sigpy.mri.poisson(SHAPE, r, (CENTRE, CENTRE), seed=next(seeds)), None)[1],
            lambda r=r, other=other, found=found: found.append(
                acceleration(poisson_mask(SHAPE, r, CENTRE / SHAPE[0], next(other)))
            ),
            clock=cpu_seconds,
        )
        worst = max(abs(a / r - 1) for a in found)
        table.faster(f"Poisson discs, R = {r}", "SigPy", theirs, ours, most=0.1, accuracy=worst, gate=0.001)


if __name__ == "__main__":
    import tempfile

    given = options(__doc__).parse_args()
    report = Table()
    with tempfile.TemporaryDirectory() as place:
        lines(report, peer_python(given.peer_python), given.rounds, Path(place))
    poisson(report, given.rounds)
    report.print_and_exit("numpy", "sigpy")
