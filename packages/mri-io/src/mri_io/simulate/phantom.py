"""An analytic multi-coil phantom of ellipses: k-space in closed form, never by a transform of pixels.

The Fourier transform of an ellipse is a Bessel function (Koay et al. 2007, doi:10.1002/mrm.21292, eq. 2 in two
dimensions). With coil sensitivities that are finite sums of complex exponentials the product's transform is a sum of
shifted copies of it, so multi-coil k-space stays exact (Guerquin-Kern et al. 2012, doi:10.1109/TMI.2011.2174158).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import j1

from mri_io.errors import ConfigError, expected_got
from mri_io.simulate.coils import loop_sensitivities, ring_of_loops
from mri_io.simulate.raw_files import SimulatedScan, check_seed, write_scans

__all__ = ["Ellipse", "PhantomScan", "ellipse_phantom", "random_head", "shepp_logan", "simulate_phantoms"]

ORDER = 2
"""Sensitivities are trigonometric polynomials of this order with the period of two fields of view."""
LABELS = {1: "outer ring", 2: "tissue", 3: "ventricles", 4: "lesions"}
FOV_MM = 240.0
SLICE_MM = 5.0


@dataclass(frozen=True)
class Ellipse:
    """One ellipse; lengths in units of the field of view, whose centre is the origin.

    Intensities add where ellipses overlap; the last ellipse that covers a point gives its label.
    """

    y: float
    x: float
    semi_y: float
    semi_x: float
    angle_rad: float
    intensity: complex
    label: int

    def transform(self, ky: np.ndarray, kx: np.ndarray) -> np.ndarray:
        """Return the continuous Fourier transform at k in cycles per field of view.

        ``F(k) = rho a b J1(2 pi q) / q exp(-2 pi i k r0)`` with ``q = |(a k_a, b k_b)|`` along the axes.
        """
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        q = np.hypot(self.semi_y * (cos * ky + sin * kx), self.semi_x * (cos * kx - sin * ky))
        with np.errstate(invalid="ignore", divide="ignore"):
            radial = np.where(q < 1e-9, np.pi, j1(2 * np.pi * q) / q)
        shift = np.exp(-2j * np.pi * (ky * self.y + kx * self.x))
        return np.asarray(self.intensity * self.semi_y * self.semi_x * radial * shift)

    def covers(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return where points lie inside."""
        cos, sin = np.cos(self.angle_rad), np.sin(self.angle_rad)
        dy, dx = y - self.y, x - self.x
        u, v = (cos * dy + sin * dx) / self.semi_y, (cos * dx - sin * dy) / self.semi_x
        return u**2 + v**2 <= 1


@dataclass(frozen=True)
class PhantomScan:
    """Exact k-space of a phantom and what it came from.

    kspace (coil, ky, kx) complex64, centred, in the units of an orthonormal FFT; sensitivities (coil, y, x); image
    (y, x) complex64, the phantom averaged over each pixel; labels (y, x) uint8, the majority of each pixel.
    """

    kspace: np.ndarray
    sensitivities: np.ndarray
    image: np.ndarray
    labels: np.ndarray


def shepp_logan() -> list[Ellipse]:
    """Return the head phantom of Shepp and Logan (1974) with the contrast of Toft (1996), y pointing down."""
    table = [  # intensity, semi_x, semi_y, x, y, angle in degrees, label
        (1.0, 0.69, 0.92, 0, 0, 0, 1),
        (-0.8, 0.6624, 0.874, 0, 0.0184, 0, 2),
        (-0.2, 0.11, 0.31, 0.22, 0, -18, 3),
        (-0.2, 0.16, 0.41, -0.22, 0, 18, 3),
        (0.1, 0.21, 0.25, 0, -0.35, 0, 4),
        (0.1, 0.046, 0.046, 0, -0.1, 0, 4),
        (0.1, 0.046, 0.046, 0, 0.1, 0, 4),
        (0.1, 0.046, 0.023, -0.08, 0.605, 0, 4),
        (0.1, 0.023, 0.023, 0, 0.606, 0, 4),
        (0.1, 0.023, 0.046, 0.06, 0.605, 0, 4),
    ]
    # The published table spans -1..1; the head is scaled to nine tenths of the field of view.
    return [
        Ellipse(0.45 * y, 0.45 * x, 0.45 * b, 0.45 * a, np.radians(angle), value, label)
        for value, a, b, x, y, angle, label in table
    ]


def random_head(rng: np.random.Generator) -> list[Ellipse]:
    """Return a variation of the head phantom: places, axes and intensities differ by a few per cent."""
    scale, turn = rng.uniform(0.88, 1.0), rng.normal(0, 0.05)
    cos, sin = np.cos(turn), np.sin(turn)
    head = []
    for number, e in enumerate(shepp_logan()):
        jitter = rng.normal(0, 0.006, 2) if number > 1 else np.zeros(2)
        y, x = scale * e.y + jitter[0], scale * e.x + jitter[1]
        axes = scale * np.array([e.semi_y, e.semi_x]) * (rng.uniform(0.85, 1.1, 2) if number > 1 else 1)
        value = e.intensity * (rng.uniform(0.8, 1.3) if number > 1 else 1)
        place = cos * y - sin * x, sin * y + cos * x
        head.append(Ellipse(*place, axes[0], axes[1], e.angle_rad + turn, value, e.label))
    return head


def ellipse_phantom(
    ellipses: Sequence[Ellipse],
    matrix: tuple[int, int],
    *,
    coils: int = 8,
    rng: np.random.Generator | None = None,
    supersampling: int = 8,
) -> PhantomScan:
    """Return exact multi-coil k-space of ellipses, with image, sensitivities and label map.

    Parameters
    ----------
    ellipses
        The object.
    matrix
        (ky, kx); k-space sample n is at n - N // 2 cycles per field of view, pixel n at (n - N // 2) / N.
    coils
        Number of coils; one coil has uniform sensitivity.
    rng
        Of the coils' places.
    supersampling
        Points per pixel and axis for image and label map.

    Returns
    -------
    PhantomScan
    """
    ny, nx = matrix
    ky, kx = np.meshgrid(np.arange(ny) - ny // 2, np.arange(nx) - nx // 2, indexing="ij")
    frequencies, coefficients = _sensitivity_coefficients(coils, rng or np.random.default_rng(0))
    kspace = np.zeros((coils, ny, nx), np.complex128)
    for (fy, fx), weights in zip(frequencies, coefficients.T, strict=True):
        spectrum = np.sum([e.transform(ky - fy, kx - fx) for e in ellipses], axis=0)
        kspace += weights[:, None, None] * spectrum
    image, labels = _rasterise(ellipses, matrix, supersampling)
    return PhantomScan(
        kspace=(kspace * np.sqrt(ny * nx)).astype(np.complex64),
        sensitivities=_evaluate(frequencies, coefficients, *_pixels(ny, nx)).astype(np.complex64),
        image=image.astype(np.complex64),
        labels=labels,
    )


def _pixels(ny: int, nx: int, oversampling: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return y and x of pixel centres, or of a finer grid inside the pixels, in fields of view."""

    def axis(n: int) -> np.ndarray:
        fine = (np.arange(n * oversampling) + 0.5) / oversampling - 0.5
        return (fine - n // 2) / n

    y, x = np.meshgrid(axis(ny), axis(nx), indexing="ij")
    return y, x


def _sensitivity_coefficients(coils: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fit trigonometric polynomials to a ring of loops; the polynomials are then the exact sensitivities."""
    if coils == 1:
        return np.zeros((1, 2)), np.ones((1, 1), np.complex128)
    orders = np.arange(-ORDER, ORDER + 1) / 2
    frequencies = np.stack(np.meshgrid(orders, orders, indexing="ij"), axis=-1).reshape(-1, 2)
    y, x = _pixels(33, 33)
    places = np.stack([np.zeros_like(y), y, x], axis=-1) * FOV_MM / 1000
    centres, normals = ring_of_loops(coils, rng, radii_m=(0.15, 0.15))
    loops = loop_sensitivities(centres, normals, places, radius_m=0.06).reshape(coils, -1)
    basis = np.exp(2j * np.pi * (np.outer(y.ravel(), frequencies[:, 0]) + np.outer(x.ravel(), frequencies[:, 1])))
    # A little damping keeps the coefficients from cancelling each other.
    gram = basis.conj().T @ basis + 1e-3 * len(basis) * np.eye(len(frequencies))
    return frequencies, np.linalg.solve(gram, basis.conj().T @ loops.T).T


def _evaluate(frequencies: np.ndarray, coefficients: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    waves = [np.exp(2j * np.pi * (fy * y + fx * x)) for fy, fx in frequencies]
    return np.tensordot(coefficients, np.stack(waves), axes=1)


def _rasterise(
    ellipses: Sequence[Ellipse], matrix: tuple[int, int], supersampling: int
) -> tuple[np.ndarray, np.ndarray]:
    y, x = _pixels(*matrix, supersampling)
    image = np.zeros(y.shape, np.complex128)
    labels = np.zeros(y.shape, np.uint8)
    for e in ellipses:
        inside = e.covers(y, x)
        image[inside] += e.intensity
        labels[inside] = e.label
    cells = (matrix[0], supersampling, matrix[1], supersampling)
    shares = np.stack([(labels == value).reshape(cells).mean(axis=(1, 3)) for value in range(int(labels.max()) + 1)])
    return image.reshape(cells).mean(axis=(1, 3)), shares.argmax(axis=0).astype(np.uint8)


def simulate_phantoms(
    out: str | Path,
    *,
    subjects: int = 4,
    slices: int = 3,
    matrix: tuple[int, int] = (128, 128),
    coils: int = 8,
    noise: float = 0.005,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write raw files of random head phantoms in the fastMRI layout, and their label maps.

    Parameters
    ----------
    out
        Folder for ``sub-01.h5`` ... and ``labels/sub-01_ellipses.nii.gz``.
    subjects, slices, coils
        Numbers; every slice is another variation of the phantom.
    matrix
        (ky, kx).
    noise
        Standard deviation of the complex noise per coil and k-space sample; the outer ring has intensity one.
    seed
        The files are a function of the parameters.
    progress
        Called with (done, subjects).

    Returns
    -------
    list of pathlib.Path
        The raw files.

    Raises
    ------
    ConfigError
        When a size is not positive, or the seed negative.
    """
    check_seed(seed)
    if min(subjects, slices, coils, *matrix) < 1 or not 0 <= noise < np.inf:
        got = f"subjects={subjects}, slices={slices}, coils={coils}, matrix={matrix}, noise={noise}"
        raise ConfigError(expected_got("simulation", expected="positive numbers, noise >= 0", got=got))
    parameters = {"kind": "phantoms-2", "slices": slices, "matrix": list(matrix), "coils": coils}
    parameters |= {"noise": noise, "seed": seed}
    ny, nx = matrix
    affine = np.diag([-FOV_MM / nx, -FOV_MM / ny, SLICE_MM, 1.0])
    affine[:2, 3] = FOV_MM / nx * (nx // 2), FOV_MM / ny * (ny // 2)

    def make(number: int) -> SimulatedScan:
        rng = np.random.default_rng([seed, number])
        coil_seed = int(rng.integers(2**31))
        scans = [
            ellipse_phantom(random_head(rng), matrix, coils=coils, rng=np.random.default_rng(coil_seed))
            for _ in range(slices)
        ]
        kspace = np.stack([scan.kspace for scan in scans])
        kspace += noise / np.sqrt(2) * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
        return SimulatedScan(
            kspace=kspace.astype(np.complex64),
            labels=np.stack([scan.labels for scan in scans]),
            affine=affine,
            te_ms=10.0,
            tr_ms=500.0,
            flip_deg=70.0,
            acquisition="PHANTOM",
        )

    return write_scans(
        out, make, parameters, subjects=subjects, label_set="ellipses", label_names=LABELS, progress=progress
    )
