"""Every method of the table through the store: one cohort that all can work on, with what each says of its end."""

import numpy as np
import pytest
import torch

from mri_io.schema import Provenance
from mri_io.store import Split, create_cohort
from mri_recon.errors import ConfigError
from mri_recon.methods import METHODS, method_lines
from mri_recon.metrics import psnr
from mri_recon.physics import fft2c
from mri_recon.run import run
from mri_recon.stored_masks import MaskConfig

MADE = Provenance.of("test", "test")
SIZE, COILS, SLICES, FRAMES = 48, 6, 2, 6
PARTIAL = ("homodyne", "pocs")


def objects():
    """Return smooth coil maps and discs of changing size, (frame, slice, y, x)."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, SIZE)], indexing="ij")
    angles = 2 * np.pi * np.arange(COILS) / COILS
    maps = np.stack([np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) + 1j * (a + y * np.cos(a))) for a in angles])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    images = np.stack(
        [
            [(y**2 + x**2 < 0.7) * 0.5 + ((y - 0.2 * n) ** 2 + x**2 < 0.1 + 0.02 * f) * 1.0 for n in range(SLICES)]
            for f in range(FRAMES)
        ]
    )
    return maps.astype(np.complex64), (images * np.exp(0.3j * y)).astype(np.complex64)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    found = create_cohort(tmp_path_factory.mktemp("methods") / "c")
    maps, images = objects()
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((FRAMES, SLICES, COILS, SIZE, SIZE, 2)) @ np.array([1, 1j]) * 0.01
    kspace = fft2c(torch.from_numpy(images[:, :, None] * maps)).numpy() + noise.astype(np.complex64)
    lines = np.arange(SIZE)
    mask = np.stack([(lines % 2 == f % 2) | (abs(lines - SIZE // 2) < 8) for f in range(FRAMES)])
    partial = np.broadcast_to(lines < SIZE * 5 // 8, (SIZE,))
    for name, data, dims in (
        ("sub-1_acq-x_run-1", kspace[0], ("slice", "coil", "ky", "kx")),
        ("sub-2_acq-cine_run-1", kspace, ("frame", "slice", "coil", "ky", "kx")),
    ):
        with found.create_volume(name, subject_id=name[:5]) as volume:
            volume.write("kspace", data, dims=dims, provenance=MADE)
            volume.write("sens/espirit", np.broadcast_to(maps, (SLICES, 1, *maps.shape)).copy(), provenance=MADE)
            volume.write("mask/r2", mask[0].astype(np.uint8), dims=("kx",), provenance=MADE)
            volume.write("mask/partial", partial.astype(np.uint8), dims=("kx",), provenance=MADE)
            if "frame" in dims:
                volume.write("mask/kt", mask.astype(np.uint8), dims=("frame", "kx"), provenance=MADE)
    found.write_split(Split(name="default", train=("sub-1",), test=("sub-2",)))
    return found


def of(image, reference):
    """Return the PSNR of magnitudes, least squares scale."""
    image, reference = (np.abs(a).astype(np.float32).reshape(-1, SIZE, SIZE) for a in (image, reference))
    scale = (image * reference).sum() / (image * image).sum()
    return float(psnr(reference, image * scale))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_beats_zero_filling(cohort, name):
    method, (_, images) = METHODS[name], objects()
    mask = "partial" if name in PARTIAL else "kt" if method.series else "r2"
    options = {"mask": MaskConfig(name=mask), "maps": "espirit", "part": "test" if method.series else None}
    base, made = f"base-{name}", f"made-{name}"
    assert run(cohort.path, method="zero-filled", name=base, **options).ok
    assert run(cohort.path, method=name, name=made, **options).ok
    for volume in cohort.volumes()[method.series :]:
        truth = images if "frame" in volume["kspace"].dims else images[0]
        found = volume[f"recon/{made}"]
        assert found.shape == truth.shape
        gained = 0 if name == "zero-filled" else 0.5 if name in PARTIAL else 3
        assert of(found.numpy(), truth) >= of(volume[f"recon/{base}"].numpy(), truth) + gained
        if "iterations" in found.attributes:
            assert sum(found.attributes["stopped"].values()) == SLICES


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.needs_maps])
def test_methods_that_need_maps_say_so(cohort, name):
    with pytest.raises(ConfigError, match=f"{name}: expected coil maps, got --maps none"):
        run(cohort.path, method=name, maps="none")


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.needs_maps])
def test_methods_combine_coils_without_maps(cohort, name):
    mask = MaskConfig(name="partial" if name in PARTIAL else "r2")
    assert run(cohort.path, method=name, name=f"rss-{name}", mask=mask, maps="none").ok
    found = cohort.volumes()[0][f"recon/rss-{name}"].numpy()
    assert found.dtype == np.float32
    assert of(found, objects()[1][0]) > 15


def test_the_help_has_a_line_for_each(cli):
    assert len(method_lines().splitlines()) == len(METHODS)
    printed = cli("recon", "run", "--help").out
    for name, method in METHODS.items():
        line = next(line for line in printed.splitlines() if line.split()[:1] == [name])
        assert line.strip().endswith(method.summary)
