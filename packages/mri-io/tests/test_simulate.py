"""The phantom against quadrature and scikit-image; simulated heads as files that other tools read."""

import json

import h5py
import ismrmrd
import nibabel
import numpy as np
import pytest
from skimage.data import shepp_logan_phantom

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import ConfigError, StoreError
from mri_io.simulate import Ellipse, ellipse_phantom, random_head, shepp_logan, simulate_brains, simulate_phantoms

HEAD = {"subjects": 1, "slices": 2, "matrix": (64, 48), "coils": 3}
TILTED = [
    Ellipse(y=0.03, x=-0.05, semi_y=0.4, semi_x=0.3, angle_rad=0.7, intensity=1.0, label=1),
    Ellipse(y=-0.1, x=0.08, semi_y=0.06, semi_x=0.15, angle_rad=-0.4, intensity=0.5 - 0.3j, label=2),
]


def quadrature(ellipse: Ellipse, radii: int = 60, angles: int = 240):
    """Return points (y, x) and weights in an ellipse: Gauss in the radius, equidistant in the angle."""
    r, w = np.polynomial.legendre.leggauss(radii)
    r, w = (r + 1) / 2, w / 2
    t = 2 * np.pi * np.arange(angles) / angles
    u, v = (np.outer(r, f(t)).ravel() for f in (np.cos, np.sin))
    long, across = ellipse.semi_y * u, ellipse.semi_x * v
    # The first half axis points from the y axis by the angle towards x.
    y = ellipse.y + np.cos(ellipse.angle_rad) * long - np.sin(ellipse.angle_rad) * across
    x = ellipse.x + np.sin(ellipse.angle_rad) * long + np.cos(ellipse.angle_rad) * across
    weights = np.outer(w * r, np.full(angles, 2 * np.pi / angles)).ravel() * ellipse.semi_y * ellipse.semi_x
    return y, x, weights


def waves(y, x):
    """Return what sensitivities consist of: waves of up to one period per field of view, in halves."""
    orders = np.arange(-2, 3) / 2
    return np.stack([np.exp(2j * np.pi * (a * y + b * x)) for a in orders for b in orders])


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("matrix", [(32, 24), (31, 45)])
def test_k_space_is_the_integral_of_object_times_sensitivity(matrix, coils, rng):
    scan = ellipse_phantom(TILTED, matrix, coils=coils)
    centres = [(np.arange(n) - n // 2) / n for n in matrix]
    pixels = np.meshgrid(*centres, indexing="ij")
    # Their values at any point, from those at the pixels.
    basis = waves(*pixels).reshape(25, -1)
    fitted, *_ = np.linalg.lstsq(basis.T, scan.sensitivities.reshape(coils, -1).T, rcond=None)
    np.testing.assert_allclose(basis.T @ fitted, scan.sensitivities.reshape(coils, -1).T, atol=1e-5)
    for row, column in [(matrix[0] // 2, matrix[1] // 2), *rng.integers(0, matrix, (6, 2))]:
        ky, kx = row - matrix[0] // 2, column - matrix[1] // 2
        expected = np.zeros(coils, complex)
        for ellipse in TILTED:
            y, x, weights = quadrature(ellipse)
            seen = ellipse.intensity * weights * np.exp(-2j * np.pi * (ky * y + kx * x))
            expected += fitted.T @ waves(y, x) @ seen
        np.testing.assert_allclose(scan.kspace[:, row, column], expected * np.sqrt(np.prod(matrix)), atol=2e-5)


def test_the_centre_is_the_integral_and_the_energy_that_of_the_object():
    apart = [Ellipse(0.2, 0.1, 0.12, 0.2, 0.3, 2.0, 1), Ellipse(-0.25, 0, 0.1, 0.1, 0, 1j, 2)]
    areas = [np.pi * e.semi_y * e.semi_x for e in apart]
    n = 256
    scan = ellipse_phantom(apart, (n, n), coils=1, supersampling=2)
    assert scan.kspace[0, n // 2, n // 2] == pytest.approx(n * (2 * areas[0] + 1j * areas[1]), rel=1e-5)
    energy = sum(area * abs(e.intensity) ** 2 for area, e in zip(areas, apart, strict=True))
    # The transform is orthonormal: n squared pixels per field of view. What is beyond the matrix is lost.
    assert np.sum(np.abs(scan.kspace) ** 2) / n**2 == pytest.approx(energy, rel=0.01)


def test_the_head_phantom_is_that_of_scikit_image():
    peer = shepp_logan_phantom()
    y, x = (0.45 * v for v in np.meshgrid(*2 * [(np.arange(400) - 199.5) / 200], indexing="ij"))
    ours = sum(e.intensity * e.covers(y, x) for e in shepp_logan())
    assert np.mean(np.abs(ours - peer) < 0.02) > 0.99


def test_image_labels_and_k_space_show_the_same(rng):
    head = random_head(rng)
    scan = ellipse_phantom(head, (128, 96), coils=4)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(scan.kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    seen = scan.image * scan.sensitivities
    assert np.linalg.norm(images - seen) < 0.15 * np.linalg.norm(seen)  # but for Gibbs' ringing
    assert np.linalg.norm(np.roll(images, 1, axis=1) - seen) > 0.3 * np.linalg.norm(seen)
    y, x = np.meshgrid((np.arange(128) - 64) / 128, (np.arange(96) - 48) / 96, indexing="ij")
    expected = np.zeros((128, 96), int)
    for e in head:
        turned = (y - e.y + 1j * (x - e.x)) * np.exp(-1j * e.angle_rad)
        expected[(turned.real / e.semi_y) ** 2 + (turned.imag / e.semi_x) ** 2 <= 1] = e.label
    assert np.mean(scan.labels == expected) > 0.98
    shifted = [np.roll(expected, s, axis) for axis in (0, 1) for s in (-1, 1)]
    inner = np.all([expected == other for other in shifted], axis=0)
    assert np.mean(scan.labels[inner] == expected[inner]) > 0.999
    assert set(np.unique(scan.labels)) == {0, 1, 2, 3, 4}


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """A folder with one simulated head."""
    out = tmp_path_factory.mktemp("brains")
    assert simulate_brains(out, **HEAD) == [out / "sub-01.h5"]
    return out


def content(path):
    with h5py.File(path) as file:
        return {key: np.asarray(file[key]) for key in file} | dict(file.attrs)


def same(one, other):
    return {key for key in one if np.array_equal(one[key], other[key])}


def test_files_have_the_layout_of_fastmri(brains):
    found = content(brains / "sub-01.h5")
    simulation = json.loads(found.pop("simulation"))
    assert set(found) == {"kspace", "reconstruction_rss", "ismrmrd_header", "max", "norm", "acquisition", "patient_id"}
    kspace, rss = found["kspace"], found["reconstruction_rss"]
    assert (kspace.shape, kspace.dtype, rss.shape, rss.dtype) == ((2, 3, 64, 48), "c8", (2, 64, 48), "f4")
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(2, 3)), norm="ortho"), axes=(2, 3))
    np.testing.assert_allclose(rss, np.linalg.norm(images, axis=1), rtol=1e-4)
    assert (found["max"], found["norm"]) == (pytest.approx(rss.max()), pytest.approx(np.linalg.norm(rss), rel=1e-5))
    assert (found["acquisition"], found["patient_id"], simulation["seed"]) == ("AXT1", "sub-01", 0)
    header = ismrmrd.xsd.CreateFromDocument(found["ismrmrd_header"].item())
    encoding = header.encoding[0]
    size = encoding.encodedSpace.matrixSize
    assert (size.x, size.y, size.z) == (64, 48, 1)  # the readout lies along the rows
    limits = encoding.encodingLimits.kspace_encoding_step_1
    assert (limits.minimum, limits.maximum, limits.center) == (0, 47, 24)
    assert header.acquisitionSystemInformation.receiverChannels == 3
    assert encoding.trajectory.value == "cartesian"
    assert header.sequenceParameters.TE == [2.9]
    labels = nibabel.load(brains / "labels" / "sub-01_tissue.nii.gz")
    field = encoding.reconSpace.fieldOfView_mm
    expected = (field.y / 48, field.x / 64, field.z)
    np.testing.assert_allclose(labels.header.get_zooms(), expected, rtol=1e-5)
    assert labels.shape == (48, 64, 2)
    assert nibabel.aff2axcodes(labels.affine) == ("L", "P", "S")
    names = json.loads((brains / "labels" / "labels.json").read_text())
    assert names == {"tissue": {"1": "grey matter", "2": "white matter"}}


def test_a_head_looks_like_one(brains):
    rss = content(brains / "sub-01.h5")["reconstruction_rss"]
    labels = np.asarray(nibabel.load(brains / "labels" / "sub-01_tissue.nii.gz").dataobj).T
    top = np.percentile(rss, 99)
    border = np.ones(rss.shape[1:], bool)
    border[2:-2, 2:-2] = False
    assert rss[:, border].max() < 0.15 * top  # air: the head fits into the field of view
    head = rss > 0.2 * top
    assert 0.35 < head.mean() < 0.75
    for plane, map_ in zip(rss, labels, strict=True):
        grey, white = (plane[map_ == value] for value in (1, 2))
        assert np.median(white) > 1.15 * np.median(grey)
        assert 0.5 < len(grey) / len(white) < 2.5
        assert np.mean(head[0][map_ > 0]) > 0.95


def test_files_are_a_function_of_the_parameters(brains, tmp_path):
    first = content(brains / "sub-01.h5")
    simulate_brains(tmp_path / "again", **HEAD | {"subjects": 2})
    again, second = (content(tmp_path / "again" / f"sub-0{n}.h5") for n in (1, 2))
    assert same(first, again) == set(first)
    simulate_brains(tmp_path / "other", **HEAD, seed=1)
    other = content(tmp_path / "other" / "sub-01.h5")
    for different in (second, other):
        assert "kspace" not in same(first, different)
        correlation = np.corrcoef(first["reconstruction_rss"].ravel(), different["reconstruction_rss"].ravel())[0, 1]
        assert 0.5 < correlation < 0.98  # another head, and not the same one under other noise


def test_a_rerun_keeps_files_unless_parameters_change(brains, tmp_path):
    seen = []
    options = {"slices": 1, "matrix": (16, 12), "coils": 2}

    def make(subjects, **more):
        simulate_phantoms(tmp_path, subjects=subjects, **options | more, progress=lambda *at: seen.append(at))
        files = sorted(tmp_path.rglob("sub-*"))
        return {file.name: file.stat().st_mtime_ns for file in files}

    first = make(2)
    assert seen == [(1, 2), (2, 2)]
    more = make(3)
    assert {name: more[name] for name in first} == first
    assert set(more) - set(first) == {"sub-03.h5", "sub-03_ellipses.nii.gz"}
    (tmp_path / "labels" / "sub-02_ellipses.nii.gz").unlink()
    (tmp_path / "sub-03.h5").write_bytes(b"torn")
    mended = make(3)
    assert {name for name in more if mended[name] == more[name]} == {"sub-01.h5", "sub-01_ellipses.nii.gz"}
    changed = make(3, noise=0.1)
    assert not {name for name in more if changed[name] == mended[name]}
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_phantoms_become_volumes_with_labels(tmp_path):
    files = simulate_phantoms(tmp_path / "raw", subjects=2, slices=2, matrix=(24, 18), coils=3, noise=0)
    assert convert([tmp_path / "raw"], tmp_path / "c", labels=tmp_path / "raw" / "labels", progress=False).ok
    volume = open_cohort(tmp_path / "c")["sub-01_acq-PHANTOM_run-1"]
    assert volume["kspace"].shape == (2, 3, 24, 18)
    labels = nibabel.load(tmp_path / "raw" / "labels" / "sub-01_ellipses.nii.gz")
    np.testing.assert_array_equal(volume["seg/ellipses"].numpy(), np.asarray(labels.dataobj).T)
    np.testing.assert_allclose(volume["seg/ellipses"].affine, labels.affine, atol=1e-4)
    assert volume["seg/ellipses"].labels[2]["name"] == "tissue"
    assert volume.header.recon_matrix == (18, 24, 1)
    np.testing.assert_allclose(labels.affine @ [9, 12, 0, 1], [0, 0, 0, 1], atol=1e-4)  # the centre of the phantom
    assert len({content(file)["kspace"].tobytes() for file in files}) == 2


def test_noise_has_the_stated_standard_deviation(tmp_path):
    options = {"subjects": 1, "slices": 2, "matrix": (64, 64), "coils": 4}
    clean, noisy = (
        content(simulate_phantoms(tmp_path / str(noise), **options, noise=noise)[0])["kspace"] for noise in (0, 0.3)
    )
    assert np.sqrt(np.mean(np.abs(noisy - clean) ** 2)) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("simulate", [simulate_phantoms, simulate_brains])
@pytest.mark.parametrize(
    "change",
    [{"subjects": 0}, {"slices": 0}, {"coils": 0}, {"matrix": (0, 4)}, *({"noise": n} for n in (-1, np.nan, np.inf))],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, simulate, change):
    with pytest.raises(ConfigError, match="simulation: expected positive numbers"):
        simulate(tmp_path / "out", **HEAD | change)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file: cannot write"):
        simulate_phantoms(tmp_path / "file", subjects=1)
