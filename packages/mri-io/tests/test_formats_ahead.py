"""AHEAD: echoes in files of their own, coil maps, NIfTI pairs of magnitude and phase."""

import h5py
import nibabel
import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.testing.ismrmrd_files import acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace

COILS, MATRIX = 3, (10, 8, 6)
SHAPE = (MATRIX[2], COILS, MATRIX[1], MATRIX[0])
TE_MS = (3.0, 11.5, 20.0, 28.5)


def echo(path, number, *, sampled=None, te_ms=None, counters=("kspace_encode_step_2",), shape=SHAPE, seed=0):
    kspace = random_kspace(shape, seed=seed + number)
    times = (TE_MS[number - 1],) if te_ms is None else te_ms
    xml = scan_header(MATRIX, te_ms=times, vendor="Philips", field_T=7.0, channels=COILS)
    write_scan(path, acquisitions_of(kspace, counters, sampled=sampled), xml)
    return kspace


def coils(path, shape=(COILS, *SHAPE[:1], *SHAPE[2:])):
    maps = random_kspace(shape, seed=77)
    with h5py.File(path, "w") as file:
        file["0real"], file["1imag"] = maps.real, maps.imag
    return maps


def subject(folder, number="001", **options):
    folder.mkdir(exist_ok=True)
    spaces = [echo(folder / f"mp2rageme_{number}_inv2_te{e}.h5", e, **options) for e in range(1, 5)]
    return np.stack(spaces), coils(folder / f"coilsens_{number}.h5")


def whole(element):
    """Put the blocks of an element together."""
    return np.concatenate([block.ravel() for block in element.blocks()]).reshape(element.shape)


def read(item):
    raw = get_format("ahead").read(item)
    return raw, {e.path: (whole(e), e) for e in raw.elements}


def test_echoes_and_coil_maps_are_one_volume(tmp_path):
    kspace, maps = subject(tmp_path / "raw")
    first = echo(tmp_path / "raw" / "mp2rageme_001_inv1.h5", 1, seed=50)
    items = find_items([tmp_path / "raw"])
    assert {item.format for item in items} == {"ahead"}
    assert [item.path.name for item in items] == ["mp2rageme_001_inv1.h5", "mp2rageme_001_inv2_te1.h5"]
    raw, elements = read(items[1])
    stored, element = elements["kspace"]
    assert element.dims == ("echo", "kz", "coil", "ky", "kx")
    np.testing.assert_array_equal(stored, kspace)
    assert raw.header.te_s == pytest.approx((0.003, 0.0115, 0.020, 0.0285))
    sens, element = elements["sens/ahead"]
    assert element.dims == ("z", "map", "coil", "y", "x")
    np.testing.assert_array_equal(sens[:, 0], maps.swapaxes(0, 1))
    np.testing.assert_array_equal(read(items[0])[1]["kspace"][0], first)
    assert [get_format("ahead").identify(item).acquisition for item in items] == ["mp2ragemeinv1", "mp2ragemeinv2"]
    assert get_format("ahead").memory(items[1]) > 0


def test_a_cohort_holds_subjects_without_their_names(tmp_path):
    for number in ("001", "002"):
        kspace, _ = subject(tmp_path / "raw", number)
    summary = convert([tmp_path / "raw"], tmp_path / "cohort", progress=False)
    assert summary.ok
    cohort = open_cohort(tmp_path / "cohort")
    names = ["sub-ahead001_acq-mp2ragemeinv2_run-1", "sub-ahead002_acq-mp2ragemeinv2_run-1"]
    assert list(cohort.volume_ids()) == names
    np.testing.assert_array_equal(cohort[names[1]]["kspace"].numpy(), kspace)
    assert cohort[names[1]].header.field_T == 7.0
    for file in (tmp_path / "cohort").rglob("*.json*"):
        assert not {word for word in (NAME, PATIENT, "Planted") if word in file.read_text()}, file


def test_masks_of_echoes_are_joined(tmp_path, rng):
    folder = tmp_path / "raw"
    folder.mkdir()
    sampled = rng.random((4, MATRIX[2], MATRIX[1])) < 0.5
    sampled[2] = True  # one echo without a mask of its own
    for e in range(1, 5):
        echo(folder / f"mp2rageme_001_inv2_te{e}.h5", e, sampled=sampled[e - 1])
    mask, element = read(find_items([folder])[0])[1]["mask/acquired"]
    assert element.dims == ("echo", "kz", "ky", "kx")
    np.testing.assert_array_equal(mask, np.broadcast_to(sampled[..., None], mask.shape))
    assert element.attributes["acceleration"] == pytest.approx(sampled.size / sampled.sum())


@pytest.mark.parametrize(
    ("te_ms", "expected"),
    [((2.5, 9, 21, 30), (0.0025, 0.009, 0.021, 0.03)), ((2.5, 9), None), ((), None)],
)
def test_times_are_those_that_files_state(tmp_path, te_ms, expected):
    subject(tmp_path / "raw", te_ms=te_ms)
    found = read(find_items([tmp_path / "raw"])[0])[0].header.te_s
    assert found == (None if expected is None else pytest.approx(expected))


def test_what_is_not_of_the_set_is_refused(tmp_path):
    folder = tmp_path / "raw"
    subject(folder)
    with pytest.raises(FormatError, match=r"te2\.h5: echoes: expected te1 to te4 .*, got mp2rageme_001_inv2_te2\.h5"):
        read(find_items([folder / "mp2rageme_001_inv2_te2.h5"])[0])
    (item,) = find_items([folder / "coilsens_001.h5"])
    assert "coil maps without the k-space" in item.problem
    coils(folder / "coilsens_001.h5", (COILS, MATRIX[2], MATRIX[1], 5))
    with pytest.raises(
        FormatError, match=r"coilsens_001\.h5: coil maps 0real and 1imag: expected real numbers .*10\).*5\)"
    ):
        read(find_items([folder])[0])
    (folder / "mp2rageme_001_inv2_te3.h5").unlink()
    echo(folder / "mp2rageme_001_inv2_te3.h5", 3, shape=(6, COILS + 1, 8, 10))
    with pytest.raises(FormatError, match=r"te3\.h5: echo: expected one echo of the k-space .*, got .*\(6, 4, 8, 10\)"):
        read(find_items([folder])[0])
    (folder / "mp2rageme_002_inv1.h5").unlink(missing_ok=True)
    echo(folder / "mp2rageme_002_inv1.h5", 1, counters=("slice",))
    with pytest.raises(FormatError, match=r"inv1\.h5: k-space: expected 3-D k-space .*, got slice, coil, ky, kx"):
        read(find_items([folder / "mp2rageme_002_inv1.h5"])[0])


AFFINE = np.array([[0, 0, 2.0, -10], [-0.7, 0.1, 0, 20], [0.1, 0.7, 0, -30], [0, 0, 0, 1]])
NAMES = {
    "bids": "sub-07_acq-mp2rageme_inv-2_echo-{echo}_part-{kind}.nii.gz",
    "other": "sub-07_echo-{echo}_part-{kind}_MEGRE.nii.gz",
    "short": "mp2rageme_007_inv2_te{echo}_{kind}.nii",
}


def pairs(folder, *, names="bids", kinds=("mag", "phase"), turn=2 * np.pi, offset=0.0, skip=None):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    shape = (5, 6, 7)
    size = rng.random((4, *shape)).astype(np.float32) + 1
    phase = rng.uniform(-0.499, 0.499, (4, *shape))
    for e in range(4):
        for kind, array in zip(kinds, (size[e], phase[e] * turn + offset), strict=True):
            if skip != (e + 1, kind):
                file = folder / NAMES[names].format(echo=e + 1, kind=kind)
                nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), AFFINE), file)
    return size * np.exp(2j * np.pi * (phase + offset / turn))


@pytest.mark.parametrize(
    ("names", "kinds", "turn", "offset"),
    [
        ("bids", ("mag", "phase"), 2 * np.pi, 0.0),
        ("short", ("magnitude", "ph"), 2000 * np.pi, 0.0),
        ("bids", ("mag", "phase"), 4096.0, 0.0),
        ("bids", ("mag", "phase"), 4096.0, 2048.0),
        ("bids", ("mag", "phase"), 8192.0, 0.0),
    ],
)
def test_magnitude_and_phase_become_complex(tmp_path, names, kinds, turn, offset):
    expected = pairs(tmp_path / "images", names=names, kinds=kinds, turn=turn, offset=offset)
    (item,) = find_items([tmp_path / "images"])
    assert (item.format, len(item.files)) == ("ahead", 8)
    raw, elements = read(item)
    stored, element = elements["recon/echoes"]
    assert element.dims == ("echo", "slice", "y", "x")
    np.testing.assert_allclose(stored, expected.transpose(0, 3, 2, 1), rtol=2e-3)
    np.testing.assert_allclose(element.affine, AFFINE, atol=1e-6)
    assert (raw.header.te_s, raw.header.field_T) == (None, None)


def test_images_of_other_sets_are_left_to_their_reader(tmp_path):
    pairs(tmp_path / "images", skip=(3, "phase"))
    pairs(tmp_path / "others", names="other")
    (tmp_path / "others" / "sub-07_echo-1_part-mag_MEGRE.json").write_text('{"EchoTime": 0.004}')
    assert {item.format for item in find_items([tmp_path])} == {"nifti"}
    assert not convert([tmp_path / "others"], tmp_path / "c", progress=False).failures
    headers = [volume.header for volume in open_cohort(tmp_path / "c").volumes()]
    assert {header.te_s for header in headers} == {None, (0.004,)}
    assert {header.field_T for header in headers} == {None}


def test_parameters_of_images_are_those_of_their_sidecars(tmp_path):
    folder = tmp_path / "images"
    pairs(folder)
    for e, time in enumerate((0.004, 0.008, 0.012, 0.016), 1):
        sidecar = folder / NAMES["bids"].format(echo=e, kind="mag").replace(".nii.gz", ".json")
        sidecar.write_text(f'{{"EchoTime": {time}, "MagneticFieldStrength": 3, "FlipAngle": {10 * e}}}')
    header = read(find_items([folder])[0])[0].header
    assert (header.te_s, header.field_T, header.flip_angle_rad) == ((0.004, 0.008, 0.012, 0.016), 3.0, None)
    sidecar.unlink()
    header = read(find_items([folder])[0])[0].header
    assert (header.te_s, header.field_T) == (None, 3.0)


def test_phases_of_no_unit_are_refused(tmp_path):
    pairs(tmp_path / "images", turn=100.0)
    expected = pairs(tmp_path / "images", turn=20000.0)
    assert expected.shape[0] == 4
    with pytest.raises(
        FormatError, match=r"part-phase\.nii\.gz: phase: expected a range of one turn in radians, .*, got"
    ):
        read(find_items([tmp_path / "images"])[0])
