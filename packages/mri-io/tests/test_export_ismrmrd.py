"""Exported ISMRMRD files as the ismrmrd package reads them, and the way back into a store."""

import ismrmrd
import numpy as np
import pytest
from ismrmrd import xsd
from scipy.spatial.transform import Rotation

from mri_io import create_cohort, open_cohort
from mri_io.convert import convert
from mri_io.errors import ConfigError
from mri_io.export import export
from mri_io.formats import ReadOptions
from mri_io.schema import Header, Provenance
from mri_io.testing.ismrmrd_files import acquisition, acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace, write_fastmri

AXES = Rotation.from_euler("xyz", [10, 25, -40], degrees=True).as_matrix()


def converted(tmp_path, path, name="cohort", **options):
    """Convert one file, and return its volume."""
    assert convert([path], tmp_path / name, progress=False, options=ReadOptions(**options)).ok
    cohort = open_cohort(tmp_path / name)
    (volume_id,) = cohort.volume_ids()
    return cohort[volume_id]


def there_and_back(tmp_path, volume):
    """Export k-space, and convert what was written."""
    (file,) = export(volume["kspace"], tmp_path / "out", "ismrmrd")
    assert file.name == f"{volume.id}_kspace.h5"
    return file, converted(tmp_path, file, "again")


def assert_same(first, again):
    """The elements of two volumes are equal."""
    assert set(first.elements()) == set(again.elements())
    for path, element in first.elements().items():
        np.testing.assert_array_equal(again[path].numpy(), element.numpy())
        assert again[path].dims == element.dims


CASES = {
    "slices": (("slice",), (3,), {}),
    "3-D": (("kspace_encode_step_2",), (6,), {}),
    "slabs": (("slice", "kspace_encode_step_2"), (2, 6), {}),
    "phases": (("phase", "slice"), (4, 2), {"undersampled": True}),
    "repetitions of phases": (("repetition", "phase", "slice"), (2, 3, 2), {}),
    "sets and echoes": (("set", "contrast", "slice"), (2, 2, 2), {}),
    "points of 3-D": (("kspace_encode_step_2",), (6,), {"undersampled": True}),
    "asymmetric": (("slice",), (2,), {"center_sample": 4, "width": 16}),
    "discarded": (("slice",), (2,), {"discard_pre": 2, "discard_post": 2}),
    "partial Fourier": (("slice",), (2,), {"limits": {"kspace_encoding_step_1": (7, 2)}, "rows": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_kspace_comes_back_the_same(tmp_path, rng, case):
    counters, leading, head = CASES[case]
    head = dict(head)
    width, rows, limits = head.pop("width", 12), head.pop("rows", 8), head.pop("limits", None)
    kspace = random_kspace((*leading, 2, 8, 12))
    sampled = rng.random((*leading, 8)) < 0.6 if head.pop("undersampled", False) else None
    made = acquisitions_of(kspace, counters, sampled=sampled, **head)
    made.append(acquisition(random_kspace((2, 40), seed=5), flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,)))
    xml = scan_header((width, rows, 6 if "kspace_encode_step_2" in counters else 1), limits=limits, te_ms=(3, 4))
    first = converted(tmp_path, write_scan(tmp_path / "sub-01_x.h5", made, xml))
    file, again = there_and_back(tmp_path, first)
    assert_same(first, again)
    assert again.header == first.header.model_copy(
        update={"padding_left": 0, "padding_right": rows} if case == "partial Fourier" else {}
    )
    dataset = ismrmrd.Dataset(str(file), mode="r")
    found = [dataset.read_acquisition(n) for n in range(dataset.number_of_acquisitions())]
    imaging = [a for a in found if not a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    assert len(imaging) == (np.prod(leading) * 8 if sampled is None else sampled.sum())
    assert [a.scan_counter for a in found] == list(range(len(found)))
    assert imaging[-1].is_flag_set(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    # Each readout is the one of its counters, in the source as in the file.
    rank = {tuple(getattr(a.idx, c) for c in (*counters, "kspace_encode_step_1")): a.data for a in imaging}
    offset = rows // 2 - (limits["kspace_encoding_step_1"][1] if limits else rows // 2)
    start = width // 2 - head.get("center_sample", 6)
    low, high = head.get("discard_pre", 0), 12 - head.get("discard_post", 0)
    for key, data in rank.items():
        expected = kspace[(*key[:-1], slice(None), key[-1] - offset)][:, low:high]
        np.testing.assert_array_equal(data[:, start + low : start + high], expected)


def test_the_header_has_the_units_of_the_format(tmp_path):
    header = Header(
        encoded_matrix=(16, 8, 1),
        recon_matrix=(8, 8, 1),
        encoded_fov_m=(0.4, 0.2, 0.005),
        recon_fov_m=(0.2, 0.2, 0.005),
        te_s=(0.003, 0.005),
        tr_s=(0.5,),
        flip_angle_rad=(np.pi / 6,),
        field_T=3.0,
        vendor="GE",
        sequence="SPGR",
    )
    cohort = create_cohort(tmp_path / "c")
    made = Provenance(method="test", package="mri-io", version="0")
    kspace = random_kspace((2, 3, 8, 8))
    with cohort.create_volume("sub-01_acq-x_run-1", subject_id="sub-01", header=header) as volume:
        volume.write(
            "kspace",
            kspace,
            provenance=made,
            dims=("slice", "coil", "ky", "kx"),
            attributes={"oversampling_removed": 2.0},
        )
    file, again = there_and_back(tmp_path, cohort["sub-01_acq-x_run-1"])
    np.testing.assert_array_equal(again["kspace"].numpy(), kspace)
    with ismrmrd.Dataset(str(file), mode="r") as dataset:
        read = xsd.CreateFromDocument(dataset.read_xml_header())  # strict
    encoded = read.encoding[0].encodedSpace
    assert (encoded.matrixSize.x, encoded.fieldOfView_mm.x) == (8, pytest.approx(200))
    assert read.encoding[0].reconSpace.fieldOfView_mm.z == pytest.approx(5)
    assert pytest.approx([3, 5]) == read.sequenceParameters.TE
    assert pytest.approx([500]) == read.sequenceParameters.TR
    assert read.sequenceParameters.flipAngle_deg == pytest.approx([30])
    assert read.acquisitionSystemInformation.systemVendor == "GE"
    assert read.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(127.73e6, rel=1e-3)
    assert again.header.te_s == pytest.approx(header.te_s)


def test_oversampling_that_was_removed_is_not_removed_again(tmp_path):
    xml = scan_header((24, 8, 1), recon=(12, 8, 1), field_mm=(400, 200, 5), recon_field_mm=(200, 200, 5))
    path = write_scan(tmp_path / "sub-01_x.h5", acquisitions_of(random_kspace((2, 2, 8, 24)), ("slice",)), xml)
    first = converted(tmp_path, path)
    assert first["kspace"].shape[-1] == 12
    _, again = there_and_back(tmp_path, first)
    assert_same(first, again)


@pytest.mark.parametrize("volume", [False, True])
def test_slices_lie_where_they_did(tmp_path, volume):
    counter, depth = ("kspace_encode_step_2", 6) if volume else ("slice", 1)
    made = acquisitions_of(random_kspace((6, 2, 8, 12)), (counter,))
    for readout in made:
        place = 0 if volume else readout.idx.slice
        readout.read_dir, readout.phase_dir, readout.slice_dir = (tuple(map(float, axis)) for axis in AXES)
        readout.position = tuple(np.array([5.0, -7, 30]) + 4 * place * AXES[2])
    first = converted(tmp_path, write_scan(tmp_path / "sub-01_x.h5", made, scan_header((12, 8, depth))))
    _, again = there_and_back(tmp_path, first)
    affine = np.array(first.attributes["recon_affine"])
    np.testing.assert_allclose(again.attributes["recon_affine"], affine, atol=1e-4)


@pytest.mark.parametrize("stack", [False, True])
def test_shots_come_back_with_their_trajectory(tmp_path, rng, stack):
    counter, depth = ("kspace_encode_step_2", 3) if stack else ("repetition", 1)
    paths = rng.uniform(-0.5, 0.5, (3, 5, 16, 2)).astype(np.float32)
    made = []
    for place in range(3):
        for shot in range(5):
            readout = acquisition(random_kspace((2, 16), seed=10 * place + shot), trajectory=paths[place, shot])
            setattr(readout.idx, counter, place)
            readout.idx.kspace_encode_step_1 = shot
            made.append(readout)
    xml = scan_header((16, 16, depth), trajectory="radial")
    first = converted(tmp_path, write_scan(tmp_path / "sub-01_x.h5", made, xml))
    _, again = there_and_back(tmp_path, first)
    assert set(first.elements()) == {"kspace", "trajectory"}
    assert_same(first, again)
    assert again.header.trajectory == "radial"


def test_readouts_of_fastmri_lie_along_its_rows(tmp_path):
    kspace = random_kspace((2, 3, 20, 16))
    mask = np.arange(16) % 4 == 1
    path = write_fastmri(tmp_path / "file1000.h5", kspace * mask, mask=mask, patient=PATIENT)
    first = converted(tmp_path, path)
    (file,) = export(first["kspace"], tmp_path / "out", "ismrmrd")
    with ismrmrd.Dataset(str(file), mode="r") as dataset:
        found = [dataset.read_acquisition(n) for n in range(dataset.number_of_acquisitions())]
        xml = dataset.read_xml_header().decode()
    assert len(found) == 2 * mask.sum()
    for readout in found:
        expected = kspace[readout.idx.slice, :, :, readout.idx.kspace_encode_step_1]
        np.testing.assert_array_equal(readout.data, expected)
    for personal in (NAME, PATIENT, "Planted"):
        assert personal not in xml


def test_whitened_data_are_written_without_their_noise(tmp_path):
    made = acquisitions_of(random_kspace((1, 2, 8, 12)), ("slice",))
    made.append(acquisition(random_kspace((2, 400), seed=5), flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,)))
    path = write_scan(tmp_path / "sub-01_x.h5", made, scan_header((12, 8, 1)))
    first = converted(tmp_path, path, noise="prewhiten")
    _, again = there_and_back(tmp_path, first)
    assert list(again.elements()) == ["kspace"]
    np.testing.assert_array_equal(again["kspace"].numpy(), first["kspace"].numpy())


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, 2), slice(1, 2)])
@pytest.mark.parametrize("columns", [[0, 2, 4], [1, 2, 4], [0, 4]])
def test_readouts_with_gaps_are_refused(volume, made, tmp_path, rows, columns):
    points = np.zeros((6, 5), np.uint8)
    points[rows, columns] = 1  # the same samples of every line
    volume.write("kspace", random_kspace((2, 2, 6, 5)) * points, provenance=made, dims=("slice", "coil", "ky", "kx"))
    volume.write("mask/acquired", points, provenance=made, dims=("ky", "kx"))
    with pytest.raises(ConfigError, match=r"mask: expected whole readouts, got points \(ky, kx\)"):
        export(volume["kspace"], tmp_path / "out", "ismrmrd")


def test_readouts_in_one_piece_are_written_with_what_to_discard(volume, made, tmp_path):
    points = np.zeros((6, 5), np.uint8)
    points[::2, 1:4] = 1
    kspace = random_kspace((2, 2, 6, 5)) * points
    volume.write("kspace", kspace, provenance=made, dims=("slice", "coil", "ky", "kx"))
    volume.write("mask/acquired", points, provenance=made, dims=("ky", "kx"))
    (file,) = export(volume["kspace"], tmp_path / "out", "ismrmrd")
    with ismrmrd.Dataset(str(file), mode="r") as dataset:
        found = [dataset.read_acquisition(n) for n in range(dataset.number_of_acquisitions())]
    assert {(a.idx.kspace_encode_step_1, a.discard_pre, a.discard_post) for a in found} == {
        (n, 1, 1) for n in (0, 2, 4)
    }
    for readout in found:
        np.testing.assert_array_equal(readout.data, kspace[readout.idx.slice, :, readout.idx.kspace_encode_step_1])


def test_what_the_format_cannot_hold_is_refused(volume, made, tmp_path, rng):
    points = (rng.random((6, 5)) < 0.5).astype(np.uint8)
    volume.write("kspace", random_kspace((2, 2, 6, 5)), provenance=made, dims=("slice", "coil", "ky", "kx"))
    volume.write("mask/acquired", points, provenance=made, dims=("ky", "kx"))
    with pytest.raises(ConfigError, match=r"mask: expected whole readouts, got points \(ky, kx\)"):
        export(volume["kspace"], tmp_path / "out", "ismrmrd")
    with pytest.raises(ConfigError, match=r"element for ismrmrd: expected kspace, got mask/acquired"):
        export(volume["mask/acquired"], tmp_path / "out", "ismrmrd")
    with pytest.raises(ConfigError, match=r"part: expected complex"):
        export(volume["kspace"], tmp_path / "out", "ismrmrd", part="magnitude")


def test_shots_without_a_trajectory_are_refused(volume, made, tmp_path):
    volume.write("kspace", random_kspace((1, 2, 6, 5)), provenance=made, dims=("slice", "coil", "shot", "sample"))
    with pytest.raises(ConfigError, match=r"trajectory: expected with k-space on no grid, got none"):
        export(volume["kspace"], tmp_path / "out", "ismrmrd")
