"""Coil calibration against BART, SigPy and mrpro: processor time, error of the maps, memory.

    python benchmarks/calibration.py --peer-python PYTHON

All estimate the maps of a Shepp-Logan phantom, 15 coils x 320^2, noise 0.004. The error is the mean of
1 - |<s, s*>|^2 to the true maps where there is a signal.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import PeerProcess, Table, cpu_seconds, interleaved, options, peer_python

N, COILS, WIDTH = 320, 15, 24
SUPPORT = 0.05
MEMORY = """
import sys, torch
from mri_recon.calibration import espirit
torch.set_num_threads(2)
centre = torch.randn(32, 24, 24, dtype=torch.complex64)
def peak():  # the kernel's mark of this process alone; getrusage counts the parent's from before the start
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1e6
before = peak()
espirit(centre, (320, 320))
print(peak(), before)
"""


def sigpy_espirit(folder: Path) -> Callable[[], np.ndarray]:
    """Job of the peer's process."""
    from sigpy.mri.app import EspiritCalib

    kspace = np.load(folder / "kspace.npy")
    return lambda: np.asarray(EspiritCalib(kspace, calib_width=WIDTH, crop=0.95, show_pbar=False).run())


def mrpro_walsh(folder: Path) -> Callable[[], np.ndarray]:
    """Job of the peer's process."""
    import torch
    from mrpro.algorithms.csm import walsh

    images = torch.from_numpy(np.load(folder / "images.npy"))[:, None]
    return lambda: walsh(images, 5)[:, 0].numpy()


def bart_espirit(folder: Path) -> Callable[[], None]:
    """Write BART's files; return the job."""
    kspace = np.load(folder / "kspace.npy").transpose(1, 2, 0)
    (folder / "k.hdr").write_text(f"# Dimensions\n{N} {N} 1 {COILS}\n")
    kspace.ravel(order="F").tofile(folder / "k.cfl")
    command = ["bart", "ecalib", "-r", str(WIDTH), "-m", "1", "k", "s"]
    return lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True) and None


def error(maps: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    """Return the mean of 1 - |<s, s*>|^2."""
    unit = [m / np.maximum(np.linalg.norm(m, axis=0), 1e-12) for m in (maps.astype(complex), true.astype(complex))]
    where = where & (np.linalg.norm(maps, axis=0) > 0)
    return float((1 - np.abs((unit[0].conj() * unit[1]).sum(axis=0)) ** 2)[where].mean())


def main() -> None:
    """Run all."""
    from mri_io.simulate import ellipse_phantom, shepp_logan
    from mri_recon.calibration import espirit, walsh_maps
    from mri_recon.physics import ifft2c

    arguments = options(__doc__).parse_args()
    peer = peer_python(arguments.peer_python)
    phantom = ellipse_phantom(shepp_logan(), (N, N), coils=COILS)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, *phantom.kspace.shape)) * 0.004 / 2**0.5
    kspace = (phantom.kspace + noise[0] + 1j * noise[1]).astype(np.complex64)
    true, inside = phantom.sensitivities, np.abs(phantom.image) > SUPPORT
    tensor = torch.from_numpy(kspace)
    middle = slice(N // 2 - WIDTH // 2, N // 2 + WIDTH // 2)
    centre, images = tensor[:, middle, middle], ifft2c(tensor)
    table = Table()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "kspace.npy", kspace)
        np.save(folder / "images.npy", images.numpy())

        def compare(name: str, other: str, job: Callable[[], object], own: Callable[[], object], most: float) -> None:
            theirs, ours = interleaved(arguments.rounds, job, own, clock=cpu_seconds)
            found = job.close() if isinstance(job, PeerProcess) else _bart_maps(folder)
            result = own()
            assert isinstance(result, torch.Tensor)
            errors = [error(m, true, inside) for m in (result.numpy().reshape(found.shape), found)]
            gate = {"bart": None, "sigpy": 1.1 * errors[1], "mrpro": (1 + 1e-6) * errors[1]}[other.split()[0]]
            # Rounding is no difference: both find the same eigenvectors.
            table.faster(name, other, theirs, ours, most=most, accuracy=errors[0], gate=gate)

        espirit_job = lambda: espirit(centre, (N, N))  # noqa: E731
        espirit_job()
        if shutil.which("bart"):
            compare("P1 ESPIRiT", "bart ecalib", bart_espirit(folder), espirit_job, 0.30)
        else:
            table.left_out("P1 ESPIRiT", "bart ecalib", "not installed")
        for name, other, function, own, most in (
            ("P1 ESPIRiT", "sigpy EspiritCalib", "sigpy_espirit", espirit_job, 0.07),
            ("P4 Walsh", "mrpro walsh", "mrpro_walsh", lambda: walsh_maps(images, 5), 0.05),
        ):
            if peer is None:
                table.left_out(name, other, "no --peer-python")
                continue
            compare(name, other, PeerProcess(peer, Path(__file__), function, folder, "cpu"), own, most)
    if sys.platform == "linux":
        done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
        peak, before = map(float, done.stdout.split())
        found = f"{peak:.2f} GB, {before:.2f} before"
        table.row("memory of ESPIRiT, 32 x 320^2", "", "", "", "", "<= 1.5 GB", found, reached=peak <= 1.5)
    table.print_and_exit("torch", "mri-recon")


def _bart_maps(folder: Path) -> np.ndarray:
    return np.fromfile(folder / "s.cfl", np.complex64).reshape((N, N, COILS), order="F").transpose(2, 0, 1)


if __name__ == "__main__":
    main()
