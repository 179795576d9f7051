"""Speed of CG-SENSE and of the centred FFT beside BART, mrpro, SigPy and fastMRI.

python benchmarks/physics.py [--rounds 7] [--peer-python PYTHON] [--threads 2] [--rows P2 P6]

One slice of a phantom, 15 coils of 640 x 368, every fourth line and 8 % at the centre, 30 iterations. All take turns.
BART's time includes reading and writing its files, which is how it is used. mrpro and fastMRI run in a process of the
Python that is named by --peer-python or PEER_PYTHON, SigPy in this one.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import PeerProcess, Table, interleaved, options, peer_python

COILS, ITERATIONS, LAMBDA = 15, 30, 0.01


def write_inputs(folder: Path, size: tuple[int, int]) -> None:
    """Write k-space, maps and lines of a noisy phantom for all peers."""
    from mri_io.simulate import ellipse_phantom, shepp_logan
    from mri_recon.physics import equispaced_mask

    scan = ellipse_phantom(shepp_logan(), size, coils=COILS)
    rng = np.random.default_rng(0)
    noise = 0.004 * (rng.standard_normal((*scan.kspace.shape, 2)) @ (1, 1j))
    maps = scan.sensitivities / np.sqrt((np.abs(scan.sensitivities) ** 2).sum(axis=0))
    lines = equispaced_mask(size[1], 4, 0.08, seed=0)
    np.save(folder / "kspace.npy", ((scan.kspace + noise) * lines).astype(np.complex64))
    np.save(folder / "maps.npy", maps.astype(np.complex64))
    np.save(folder / "lines.npy", lines)
    for name, array in (("kspace", np.load(folder / "kspace.npy")), ("maps", np.load(folder / "maps.npy"))):
        _write_cfl(folder / name, array.transpose(1, 2, 0)[:, :, None])  # readout, phase, slice, coil


def _write_cfl(path: Path, array: np.ndarray) -> None:
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    path.with_suffix(".cfl").write_bytes(np.asarray(array, np.complex64).tobytes(order="F"))


def bart_cg(folder: Path) -> Callable[[], None]:
    """Return BART's reconstruction by conjugate gradients."""
    settings = ["-S", "-w", "1", "-l2", "-r", str(LAMBDA), "-i", str(ITERATIONS)]
    command = ["bart", "pics", *settings, *(str(folder / name) for name in ("kspace", "maps", "bart"))]

    def reconstruct() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return reconstruct


def sigpy_cg(folder: Path) -> Callable[[], np.ndarray]:
    """Return SigPy's."""
    from sigpy.mri.app import SenseRecon

    kspace, maps = np.load(folder / "kspace.npy"), np.load(folder / "maps.npy")
    weights = np.broadcast_to(np.load(folder / "lines.npy").astype(np.float32), kspace.shape)
    return lambda: SenseRecon(
        kspace, maps, lamda=LAMBDA, weights=weights, max_iter=ITERATIONS, tol=0, show_pbar=False
    ).run()


def mrpro_cg(folder: Path) -> Callable[[], np.ndarray]:
    """Return mrpro's, with the sampled lines alone and its Gram operator; runs in the peers' Python."""
    import torch
    from mrpro.algorithms.optimizers import cg
    from mrpro.data import KTrajectory, SpatialDimension
    from mrpro.operators import FourierOp, IdentityOp, SensitivityOp

    lines = torch.from_numpy(np.load(folder / "lines.npy")).nonzero()[:, 0]
    kspace = torch.from_numpy(np.load(folder / "kspace.npy"))[..., lines]
    maps = torch.from_numpy(np.load(folder / "maps.npy"))
    ny, nx = maps.shape[-2:]
    data = kspace.permute(0, 2, 1).contiguous()[None, :, None]
    csm = maps.permute(0, 2, 1).contiguous()[None, :, None]
    readout = (torch.arange(ny) - ny // 2).float().view(1, 1, 1, 1, -1)
    phase = (lines - nx // 2).float().view(1, 1, 1, -1, 1)
    matrix = SpatialDimension(1, nx, ny)
    trajectory = KTrajectory(torch.zeros(1, 1, 1, 1, 1), phase, readout)

    def reconstruct() -> np.ndarray:
        operator = FourierOp(matrix, matrix, trajectory) @ SensitivityOp(csm)
        (right,) = operator.H(data)
        (image,) = cg(operator.gram + LAMBDA * IdentityOp(), right, max_iterations=ITERATIONS, tolerance=0)
        return image[0, 0, 0].T.numpy()

    return reconstruct


def fastmri_fft(folder: Path) -> Callable[[], np.ndarray]:
    """Return fastMRI's centred transform; runs in the peers' Python."""
    import fastmri
    import torch

    images = torch.view_as_real(torch.from_numpy(np.load(folder / "kspace.npy")))
    return lambda: fastmri.fft2c(images).numpy()


def cg_sense_rows(table: Table, folder: Path, rounds: int, python: str | None, threads: int) -> None:
    """P2: CG-SENSE."""
    import torch

    from mri_recon.classical import cg_sense

    kspace, maps = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("kspace", "maps"))
    mask = torch.from_numpy(np.load(folder / "lines.npy"))[None]

    def own() -> np.ndarray:
        settings = {"regularisation": LAMBDA, "iterations": ITERATIONS, "tolerance": 1e-30}
        return cg_sense(kspace, mask, maps[None], **settings).image.numpy()

    reference = sigpy_cg(folder)()
    error = float(np.linalg.norm(own() - reference) / np.linalg.norm(reference))
    jobs: dict[str, Callable[[], object]] = {"sigpy": sigpy_cg(folder)}
    if shutil.which("bart"):
        jobs["bart pics"] = bart_cg(folder)
    peer = PeerProcess(python, Path(__file__), "mrpro_cg", folder, threads=threads) if python else None
    if peer:
        jobs["mrpro"] = peer
    for job in jobs.values():
        job()
    *theirs, ours = interleaved(rounds, *jobs.values(), own)
    name = f"P2 CG-SENSE, {ITERATIONS} iterations, {_size(kspace)}"
    limits = {"bart pics": 0.35, "mrpro": 0.55, "sigpy": None}
    for label, most in limits.items():
        if label in jobs:
            seconds = theirs[list(jobs).index(label)]
            table.faster(name, label, seconds, ours, most=most, accuracy=error, gate=1e-4)
        else:
            table.left_out(name, label, "not installed")
    for label, image in (
        ("mrpro", peer.close() if peer else None),
        ("bart pics", _bart_image(folder, reference.shape)),
    ):
        if image is not None:
            difference = np.linalg.norm(image - reference) / np.linalg.norm(reference)
            print(f"{label}: differs from sigpy by {difference:.2g}")


def _size(array: Any) -> str:
    return " x ".join(map(str, array.shape))


def _bart_image(folder: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    path = folder / "bart.cfl"
    return np.fromfile(path, np.complex64).reshape(shape, order="F") if path.exists() else None


def fft_rows(table: Table, folder: Path, rounds: int, python: str | None, threads: int) -> None:
    """P6: the centred transform of 15 images."""
    import torch

    from mri_recon.physics import fft2c

    images = torch.from_numpy(np.load(folder / "kspace.npy"))
    shifted = np.fft.ifftshift(images.numpy().astype(np.complex128), axes=(-2, -1))
    reference = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))
    error = float(np.linalg.norm(fft2c(images).numpy() - reference) / np.linalg.norm(reference))
    name = f"P6 centred FFT, {_size(images)}"
    peer = PeerProcess(python, Path(__file__), "fastmri_fft", folder, threads=threads) if python else None
    jobs: list[Callable[[], object]] = [lambda: torch.fft.fft2(images, norm="ortho"), lambda: fft2c(images)]
    if peer:
        jobs.insert(0, peer)
    interleaved(2, *jobs)
    *theirs, bare, ours = interleaved(5 * rounds, *jobs)
    if peer:
        table.faster(name, "fastmri.fft2c", theirs[0], ours, most=0.65, accuracy=error, gate=1e-6)
        peer.close()
    else:
        table.left_out(name, "fastmri.fft2c", "not installed")
    table.faster(name, "torch.fft.fft2", bare, ours, most=1.7, accuracy=error, gate=1e-6)


def main() -> None:
    """Run both and print the table."""
    parser = options(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of everybody [2]")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 368), help="of the slice [640 368]")
    parser.add_argument("--rows", nargs="+", choices=["P2", "P6"], default=["P2", "P6"])
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # BART's
    import torch

    torch.set_num_threads(given.threads)
    torch.set_grad_enabled(False)
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, tuple(given.size))
        chosen = {"P2": cg_sense_rows, "P6": fft_rows}
        for rows in (chosen[name] for name in given.rows):
            rows(table, folder, given.rounds, peer_python(given.peer_python), given.threads)
    table.print_and_exit("torch", "sigpy", "numpy")


if __name__ == "__main__":
    main()
