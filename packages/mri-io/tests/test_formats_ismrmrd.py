"""ISMRMRD: readouts sorted into k-space; series, partitions, partial readouts, averages, calibration; refusals."""

import ismrmrd
import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError, NonFiniteError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.testing.ismrmrd_files import acquisition, acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace, write_ismrmrd, xml_header

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
REVERSE = ismrmrd.ACQ_IS_REVERSE
CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
BOTH = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING


def centred(function, array):
    """A centred orthonormal transform along the readout."""
    return np.fft.fftshift(function(np.fft.ifftshift(array, axes=-1), norm="ortho"), axes=-1)


def readouts(kspace, *, lines=None, **counters):
    """Readouts of k-space (slice, coil, ky, kx), in an order that is not that of the rows."""
    found = []
    for s in range(kspace.shape[0]):
        for line in list(range(kspace.shape[2]) if lines is None else lines)[::-1]:
            found.append((kspace[s, :, line], {"slice": s, "kspace_encode_step_1": line, **counters}, ()))
    return found


def whole(element):
    """Put the blocks of an element together."""
    return np.concatenate([block.ravel() for block in element.blocks()]).reshape(element.shape)


def read(path, **choices):
    (item,) = find_items([path], choices=ReadOptions(**choices))
    assert item.format == "ismrmrd"
    raw = get_format("ismrmrd").read(item)
    return raw, {e.path: (whole(e), e) for e in raw.elements}


def test_multi_slice_with_noise_scans(tmp_path):
    kspace = random_kspace((3, 4, 10, 16))
    noise = (random_kspace((4, 32), seed=9), {}, (NOISE,))
    path = write_ismrmrd(tmp_path / "a.h5", [noise, *readouts(kspace)], xml_header(16, 10))
    path.chmod(0o444)  # raw data often are
    raw, elements = read(path)
    np.testing.assert_array_equal(elements["kspace"][0], kspace)
    assert list(elements) == ["kspace", "noise"]
    np.testing.assert_array_equal(elements["noise"][0], noise[0])
    assert elements["kspace"][1].attributes == {"averages": 1, "oversampling_removed": 1.0}
    assert raw.header.te_s == pytest.approx((0.01, 0.02))
    identity = get_format("ismrmrd").identify(find_items([path])[0])
    assert identity.acquisition == "AXT2"
    assert PATIENT not in identity.subject + str(raw)
    assert NAME not in str(raw)
    assert {PATIENT, NAME, "1950-02-03"} <= {identity.patient, *identity.aliases}


def test_averages_are_averaged(tmp_path):
    first, second = random_kspace((1, 2, 6, 8)), random_kspace((1, 2, 6, 8), seed=1)
    both = [*readouts(first, average=0), *readouts(second, average=1)]
    _, elements = read(write_ismrmrd(tmp_path / "a.h5", both, xml_header(8, 6)))
    np.testing.assert_allclose(elements["kspace"][0], (first + second) / 2, rtol=1e-6)
    assert elements["kspace"][1].attributes["averages"] == 2


def test_lines_may_differ_in_their_averages(tmp_path):
    first, second = random_kspace((1, 2, 6, 8)), random_kspace((1, 2, 6, 8), seed=1)
    both = [*readouts(first), *readouts(second, lines=(2, 3), average=1)]
    _, elements = read(write_ismrmrd(tmp_path / "a.h5", both, xml_header(8, 6)))
    expected = first.copy()
    expected[:, :, 2:4] = (first[:, :, 2:4] + second[:, :, 2:4]) / 2
    np.testing.assert_allclose(elements["kspace"][0], expected, rtol=1e-6)


def test_oversampling_is_removed_and_stated(tmp_path):
    image = random_kspace((1, 2, 6, 16))
    wide = np.zeros((1, 2, 6, 32), np.complex64)
    wide[..., 8:24] = image
    oversampled = centred(np.fft.fft, wide).astype(np.complex64)
    path = write_ismrmrd(tmp_path / "a.h5", readouts(oversampled), xml_header(32, 6, rx=16))
    _, elements = read(path)
    kspace, element = elements["kspace"]
    np.testing.assert_allclose(centred(np.fft.ifft, kspace), image, atol=1e-5)
    assert element.attributes["oversampling_removed"] == 2.0
    kept, element = read(path, oversampling="keep")[1]["kspace"]
    np.testing.assert_array_equal(kept, oversampled)
    assert element.attributes == {"averages": 1, "oversampling_removed": 1.0, "oversampling": 2.0}


def test_undersampling_gives_a_mask(tmp_path):
    kspace = random_kspace((2, 2, 12, 8))
    kspace[:, :, 3] = 0  # acquired all the same
    _, elements = read(write_ismrmrd(tmp_path / "a.h5", readouts(kspace, lines=range(0, 12, 3)), xml_header(8, 12)))
    mask, element = elements["mask/acquired"]
    assert element.dims == ("ky",)
    assert element.attributes == {"acceleration": 3.0}
    np.testing.assert_array_equal(mask, np.arange(12) % 3 == 0)
    np.testing.assert_array_equal(elements["kspace"][0], kspace * mask[:, None])


def test_partial_fourier_lines_are_placed_by_their_centre(tmp_path):
    # 9 of 12 lines were acquired; the centre is line 3 of the file and must come to row 6.
    kspace = random_kspace((1, 2, 9, 8))
    path = write_ismrmrd(tmp_path / "a.h5", readouts(kspace), xml_header(8, 12, last=8, centre=3))
    raw, elements = read(path)
    np.testing.assert_array_equal(elements["kspace"][0][:, :, 3:], kspace)
    assert not elements["kspace"][0][:, :, :3].any()
    assert (raw.header.padding_left, raw.header.padding_right) == (3, 12)
    np.testing.assert_array_equal(elements["mask/acquired"][0], np.arange(12) >= 3)


def test_data_sets_of_one_file_are_volumes(tmp_path):
    path = tmp_path / "a.h5"
    for group in ("scan1", "scan2"):
        write_ismrmrd(path, readouts(random_kspace((1, 2, 6, 8))), xml_header(8, 6), group=group)
    assert [item.label for item in find_items([path])] == ["a.h5:scan1", "a.h5:scan2"]


SERIES = {
    # counters, shape in front of (coil, ky, kx), dimensions of the store
    "3-D": (("kspace_encode_step_2",), (5,), ("kz",)),
    "slabs": (("slice", "kspace_encode_step_2"), (2, 5), ("slice", "kz")),
    "echoes": (("contrast", "slice"), (3, 2), ("echo", "slice")),
    "phases": (("phase", "slice"), (3, 2), ("frame", "slice")),
    "repetitions": (("repetition", "slice"), (3, 1), ("frame", "slice")),
    "sets": (("set", "slice"), (3, 2), ("set", "slice")),
    "3-D echoes": (("contrast", "kspace_encode_step_2"), (2, 5), ("echo", "kz")),
    "all": (
        ("set", "phase", "contrast", "slice", "kspace_encode_step_2"),
        (2, 3, 2, 2, 5),
        ("set", "frame", "echo", "slice", "kz"),
    ),
}


@pytest.mark.parametrize("case", SERIES)
def test_series_and_partitions_are_dimensions(tmp_path, case):
    counters, leading, dims = SERIES[case]
    kspace = random_kspace((*leading, 2, 4, 6))
    xml = scan_header((6, 4, 5 if "kz" in dims else 1))
    _, elements = read(write_scan(tmp_path / "a.h5", acquisitions_of(kspace, counters), xml))
    stored, element = elements["kspace"]
    assert element.dims == (*dims, "coil", "ky", "kx")
    np.testing.assert_array_equal(stored, kspace)
    assert list(elements) == ["kspace"]
    if "frame" in dims:
        counts = {name: leading[counters.index(name)] if name in counters else 1 for name in ("phase", "repetition")}
        assert element.attributes["frames"] == {f"{name}s": count for name, count in counts.items()}


def test_phases_of_repetitions_are_frames_one_after_the_other(tmp_path):
    kspace = random_kspace((2, 3, 1, 2, 4, 6))
    path = write_scan(
        tmp_path / "a.h5", acquisitions_of(kspace, ("repetition", "phase", "slice")), scan_header((6, 4, 1))
    )
    stored, element = read(path)[1]["kspace"]
    np.testing.assert_array_equal(stored, kspace.reshape(6, 1, 2, 4, 6))
    assert element.attributes["frames"] == {"phases": 3, "repetitions": 2}


def test_masks_have_the_dimensions_along_which_they_differ(tmp_path, rng):
    header = scan_header((6, 8, 1))
    kspace = random_kspace((3, 2, 2, 8, 6))
    by_frame = np.broadcast_to((np.arange(8) + np.arange(3)[:, None, None]) % 3 == 0, (3, 2, 8))
    path = write_scan(tmp_path / "f.h5", acquisitions_of(kspace, ("phase", "slice"), sampled=by_frame), header)
    stored, elements = read(path)[1]["kspace"], read(path)[1]
    mask, element = elements["mask/acquired"]
    assert element.dims == ("frame", "ky")
    np.testing.assert_array_equal(mask, by_frame[:, 0])
    assert element.attributes["acceleration"] == pytest.approx(by_frame.size / by_frame.sum())
    np.testing.assert_array_equal(stored[0], kspace * by_frame[:, :, None, :, None])

    by_slice = rng.random((2, 8)) < 0.5
    path = write_scan(tmp_path / "s.h5", acquisitions_of(kspace[0], ("slice",), sampled=by_slice), header)
    mask, element = read(path)[1]["mask/acquired"]
    assert element.dims == ("slice", "ky", "kx")
    np.testing.assert_array_equal(mask, np.broadcast_to(by_slice[..., None], (2, 8, 6)))


def test_points_of_3d_scans_give_a_mask_of_partitions(tmp_path, rng):
    # Partial Fourier along partitions: 5 of 8, the centre is the second.
    sampled = rng.random((5, 8)) < 0.6
    sampled[1, 4] = True
    kspace = random_kspace((5, 2, 8, 6))
    xml = scan_header((6, 8, 8), limits={"kspace_encoding_step_2": (4, 1)})
    readouts_ = acquisitions_of(kspace, ("kspace_encode_step_2",), sampled=sampled)
    path = write_scan(tmp_path / "a.h5", readouts_, xml)
    elements = read(path)[1]
    expected = np.zeros((8, 8), bool)
    expected[3:] = sampled
    mask, element = elements["mask/acquired"]
    assert element.dims == ("kz", "ky", "kx")
    np.testing.assert_array_equal(mask, np.broadcast_to(expected[..., None], (8, 8, 6)))
    np.testing.assert_array_equal(elements["kspace"][0][3:], kspace * sampled[:, None, :, None])


def test_asymmetric_echoes_are_placed_by_their_centre(tmp_path):
    # 12 of 16 columns; the centre of k-space is the fifth sample.
    kspace = random_kspace((1, 2, 6, 12))
    path = write_scan(tmp_path / "a.h5", acquisitions_of(kspace, ("slice",), center_sample=4), scan_header((16, 6, 1)))
    elements = read(path)[1]
    stored, element = elements["kspace"]
    np.testing.assert_array_equal(stored[..., 4:], kspace)
    assert not stored[..., :4].any()
    assert element.attributes["partial_columns"] == [4, 16, 16]
    mask, element = elements["mask/acquired"]
    assert element.dims == ("kx",)
    np.testing.assert_array_equal(mask, np.arange(16) >= 4)
    assert element.attributes["acceleration"] == pytest.approx(16 / 12)


def test_lines_that_are_not_acquired_of_an_asymmetric_echo(tmp_path):
    kspace = random_kspace((1, 2, 6, 12))
    sampled = (np.arange(6) % 2 == 0)[None]
    made = acquisitions_of(kspace, ("slice",), sampled=sampled, center_sample=4)
    mask, element = read(write_scan(tmp_path / "a.h5", made, scan_header((16, 6, 1))))[1]["mask/acquired"]
    assert element.dims == ("ky", "kx")
    np.testing.assert_array_equal(mask, sampled[0][:, None] & (np.arange(16) >= 4))
    assert element.attributes["acceleration"] == pytest.approx(2 * 16 / 12)


def test_asymmetric_echoes_lose_their_oversampling(tmp_path):
    full = random_kspace((1, 2, 6, 32))
    full[..., :8] = 0
    xml = scan_header((32, 6, 1), recon=(16, 6, 1), field_mm=(400, 200, 5), recon_field_mm=(200, 200, 5))
    path = write_scan(tmp_path / "a.h5", acquisitions_of(full[..., 8:], ("slice",), center_sample=8), xml)
    elements = read(path)[1]
    expected = centred(np.fft.fft, centred(np.fft.ifft, full)[..., 8:24])
    np.testing.assert_allclose(elements["kspace"][0], expected, atol=1e-5)
    # Every second of the original columns remains a column: of 8 .. 31 those are 4 .. 15.
    np.testing.assert_array_equal(elements["mask/acquired"][0], np.arange(16) >= 4)
    assert elements["kspace"][1].attributes["partial_columns"] == [8, 32, 32]


def test_echoes_of_different_asymmetry_have_masks_of_their_own(tmp_path):
    first, second = random_kspace((1, 2, 4, 12)), random_kspace((1, 2, 4, 16))
    made = [
        *acquisitions_of(first[None], ("contrast", "slice"), center_sample=4),
        *acquisitions_of(second, ("slice",)),
    ]
    for readout in made[len(made) // 2 :]:
        readout.idx.contrast = 1
    elements = read(write_scan(tmp_path / "a.h5", made, scan_header((16, 4, 1))))[1]
    np.testing.assert_array_equal(elements["kspace"][0][0, ..., 4:], first)
    np.testing.assert_array_equal(elements["kspace"][0][1], second)
    mask, element = elements["mask/acquired"]
    assert element.dims == ("echo", "kx")
    np.testing.assert_array_equal(mask, [np.arange(16) >= 4, np.ones(16)])
    assert element.attributes["acceleration"] == pytest.approx(32 / 28)


@pytest.mark.parametrize("matrix", [16, 12])
def test_discarded_samples_are_left_out(tmp_path, matrix):
    # 16 samples of which 3 and 1 are to be discarded, in a matrix that counts them or does not.
    kspace = random_kspace((1, 2, 6, 16))
    head = {"discard_pre": 3, "discard_post": 1, "center_sample": 8 if matrix == 16 else 9}
    path = write_scan(tmp_path / "a.h5", acquisitions_of(kspace, ("slice",), **head), scan_header((matrix, 6, 1)))
    elements = read(path)[1]
    stored, element = elements["kspace"]
    assert stored.shape[-1] == matrix
    assert element.attributes["discarded_samples"] == [[3, 1]]
    if matrix == 12:
        np.testing.assert_array_equal(stored, kspace[..., 3:15])
        assert "mask/acquired" not in elements
    else:
        np.testing.assert_array_equal(stored[..., 3:15], kspace[..., 3:15])
        assert not stored[..., [0, 1, 2, 15]].any()
        np.testing.assert_array_equal(np.flatnonzero(elements["mask/acquired"][0]), np.arange(3, 15))


def bipolar(path, kspace, columns=slice(None), reversed_columns=slice(None)):
    """Write two echoes of k-space (echo, slice, coil, ky, kx), the second from its last column to its first."""
    width = kspace.shape[-1]
    made = acquisitions_of(kspace, ("contrast", "slice"))
    for number, readout in enumerate(made):
        echo = readout.idx.contrast
        acquired = np.arange(width)[reversed_columns if echo else columns][:: -1 if echo else 1]
        data = np.ascontiguousarray(readout.data[:, acquired % width])
        centre = int(np.flatnonzero(acquired == width // 2)[0])
        made[number] = acquisition(data, flags=(REVERSE,) if echo else (), center_sample=centre)
        made[number].idx.contrast, made[number].idx.kspace_encode_step_1 = echo, readout.idx.kspace_encode_step_1
    return write_scan(path, made, scan_header((width, kspace.shape[-2], 1)))


@pytest.mark.parametrize("width", [7, 8])
def test_reversed_echoes_are_turned(tmp_path, width):
    kspace = random_kspace((2, 1, 2, 6, width))
    elements = read(bipolar(tmp_path / "a.h5", kspace))[1]
    stored, element = elements["kspace"]
    np.testing.assert_array_equal(stored, kspace)
    assert element.attributes["reflected_echoes"] == [1]
    assert "mask/acquired" not in elements


def test_the_centre_of_reversed_readouts_is_that_of_the_others(tmp_path):
    # Sample 4 of 8 is the centre of k-space, in whichever direction it is passed.
    made = [
        acquisition(
            np.eye(8, dtype=np.complex64)[None, 4],
            flags=(REVERSE,) if echo else (),
            counters={"contrast": echo, "kspace_encode_step_1": line},
        )
        for echo in (0, 1)
        for line in range(6)
    ]
    elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 6, 1))))[1]
    stored = elements["kspace"][0]
    assert set(np.abs(stored).argmax(-1).ravel()) == {4}
    assert "mask/acquired" not in elements


def test_asymmetric_reversed_echoes_lie_around_their_centre(tmp_path):
    kspace = random_kspace((2, 1, 2, 6, 16))
    elements = read(bipolar(tmp_path / "a.h5", kspace, slice(5, 16), slice(1, 11)))[1]
    expected = kspace.copy()
    expected[0, ..., :5] = expected[1, ..., [0, *range(11, 16)]] = 0
    np.testing.assert_array_equal(elements["kspace"][0], expected)
    assert elements["kspace"][1].attributes["partial_columns"] == [[5, 16, 16], [1, 11, 16]]
    mask = elements["mask/acquired"][0]
    np.testing.assert_array_equal(np.flatnonzero(mask[0]), np.arange(5, 16))
    np.testing.assert_array_equal(np.flatnonzero(mask[1]), np.arange(1, 11))


def test_a_sample_beyond_the_matrix_is_left_out(tmp_path):
    made = [
        acquisition(
            np.arange(1, 10, dtype=np.complex64)[None],
            flags=(REVERSE,),
            center_sample=8,
            counters={"kspace_encode_step_1": line},
        )
        for line in range(6)
    ]  # from 8 columns behind the centre of 16, of which 7 are in the matrix, to the centre
    stored, element = read(write_scan(tmp_path / "a.h5", made, scan_header((16, 6, 1))))[1]["kspace"]
    np.testing.assert_array_equal(stored[0, 0, 0], [0] * 8 + list(range(9, 1, -1)))
    assert element.attributes["partial_columns"] == [8, 16, 16]


def calibrating(kspace, lines, **counters):
    return [
        acquisition(
            np.ascontiguousarray(kspace[:, line]),
            flags=(CALIBRATION,),
            counters={"kspace_encode_step_1": line, **counters},
        )
        for line in lines
    ]


@pytest.mark.parametrize("mode", [None, "embedded", "separate"])
def test_calibration_lines_complete_the_scan_they_belong_to(tmp_path, mode):
    kspace = random_kspace((1, 2, 12, 8))
    sampled = (np.arange(12) % 3 == 0)[None]
    made = acquisitions_of(kspace, ("slice",), sampled=sampled)
    for readout in made:
        if readout.idx.kspace_encode_step_1 == 6:
            readout.set_flag(BOTH)
            readout.set_flag(CALIBRATION)  # some converters set both
    made += calibrating(kspace[0], (5, 7))
    elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 12, 1), calibration=mode)))[1]
    expected = sampled[0].copy()
    expected[[5, 7]] = mode != "separate"
    np.testing.assert_array_equal(elements["mask/acquired"][0], expected)
    np.testing.assert_array_equal(elements["kspace"][0], kspace * expected[:, None])
    stated = elements["kspace"][1].attributes
    taken = mode != "separate"
    assert stated["reference_readouts"] == {"added": 2 * taken, "left out": 2 * (not taken)}


@pytest.mark.parametrize("why", ["measured twice", "another readout", "another encoding", "another frame"])
def test_other_calibration_scans_are_left_out_and_stated(tmp_path, why):
    kspace, other = random_kspace((1, 2, 12, 8)), random_kspace((2, 12, 8), seed=3)
    sampled = (np.arange(12) % 3 == 0)[None]
    made = acquisitions_of(kspace, ("slice",), sampled=sampled)
    extra = {
        "measured twice": calibrating(other, (5, 6, 7)),
        "another readout": calibrating(other[..., :6], (5, 7, 8)),
        "another encoding": calibrating(other, (5, 7, 8)),
        "another frame": calibrating(other, (5, 7, 8), repetition=1),
    }[why]
    if why == "another encoding":
        for readout in extra:
            readout.encoding_space_ref = 1
    path = write_scan(tmp_path / "a.h5", made + extra, scan_header((8, 12, 1), encodings=2))
    elements = read(path)[1]
    np.testing.assert_array_equal(elements["kspace"][0], kspace * sampled[0][:, None])
    assert elements["kspace"][1].attributes["reference_readouts"] == {"added": 0, "left out": 3}


def test_auxiliary_readouts_and_other_encodings_are_left_out_and_stated(tmp_path):
    kspace = random_kspace((1, 2, 6, 8))
    made = acquisitions_of(kspace, ("slice",))
    line = np.ascontiguousarray(kspace[0, :, 0])
    made.insert(0, acquisition(line, flags=(ismrmrd.ACQ_IS_NAVIGATION_DATA,)))
    made.insert(3, acquisition(line, flags=(ismrmrd.ACQ_IS_DUMMYSCAN_DATA,)))
    made.append(acquisition(line, encoding_space_ref=1))
    elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 6, 1), encodings=2)))[1]
    np.testing.assert_array_equal(elements["kspace"][0], kspace)
    stated = elements["kspace"][1].attributes["left_out"]
    assert stated == {"navigator": 1, "dummy": 1, "encoding 1": 1}


def test_slices_that_are_missing_are_stated(tmp_path):
    kspace = random_kspace((2, 2, 2, 6, 8))
    sampled = np.ones((2, 2, 6), bool)
    sampled[1, 1] = False  # the scan was stopped
    made = acquisitions_of(kspace, ("repetition", "slice"), sampled=sampled)
    elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 6, 1))))[1]
    assert elements["kspace"][1].attributes["empty_slices"] == 1
    mask, element = elements["mask/acquired"]
    assert element.dims == ("frame", "slice", "ky", "kx")
    assert not mask[1, 1].any()
    assert mask.sum() == 3 * 6 * 8


def test_counters_that_do_not_begin_at_zero_are_stated(tmp_path):
    kspace = random_kspace((2, 2, 6, 8))
    made = acquisitions_of(kspace, ("slice",))
    for readout in made:
        readout.idx.slice = 3 + 4 * readout.idx.slice
    stored, element = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 6, 1))))[1]["kspace"]
    np.testing.assert_array_equal(stored, kspace)
    assert element.attributes["slice_numbers"] == [3, 7]


def test_a_centre_of_zero_is_one_that_was_not_filled_in(tmp_path):
    kspace = random_kspace((1, 2, 6, 8))
    xml = scan_header((8, 6, 1), limits={"kspace_encoding_step_1": (5, 0)})
    stored, _ = read(write_scan(tmp_path / "a.h5", acquisitions_of(kspace, ("slice",)), xml))[1]["kspace"]
    np.testing.assert_array_equal(stored, kspace)


def test_noise_whitens_the_coils(tmp_path, rng):
    coils, lines, samples = 3, 64, 128
    mixing = np.array([[1, 0, 0], [0.6j, 2, 0], [0.3, 0.5, 3]])

    def noise(variance, *shape):
        white = rng.standard_normal((coils, *shape)) + 1j * rng.standard_normal((coils, *shape))
        return np.tensordot(mixing, white * np.sqrt(variance / 2), 1).astype(np.complex64)

    # The scan's bandwidth is half of the noise readouts', of which the receiver passes 80 %.
    image = noise(1.0, lines, samples)[None]
    made = [acquisition(noise(2.0 * 0.8, 4096), flags=(NOISE,), sample_time_us=2.5) for _ in range(2)]
    made += acquisitions_of(image, ("slice",), sample_time_us=5.0)
    path = write_scan(tmp_path / "a.h5", made, scan_header((samples, lines, 1), noise_bandwidth=0.8))
    elements = read(path)[1]
    np.testing.assert_array_equal(elements["kspace"][0], image)
    noise_stored, element = elements["noise"]
    assert noise_stored.shape == (coils, 8192)
    assert element.attributes == pytest.approx(
        {
            "dwell_time_s": 2.5e-6,
            "readout_dwell_time_s": 5e-6,
            "relative_noise_bandwidth": 0.8,
            "bandwidth_ratio": 1.6,
        }
    )
    elements = read(path, noise="prewhiten")[1]
    flat = np.moveaxis(elements["kspace"][0][0], 0, -1).reshape(-1, coils)
    np.testing.assert_allclose(flat.T @ flat.conj() / len(flat), np.eye(coils), atol=0.06)
    np.testing.assert_array_equal(elements["noise"][0], noise_stored)
    stated = elements["kspace"][1].attributes
    covariance = mixing @ mixing.conj().T
    assert stated["prewhitened"]["bandwidth_ratio"] == pytest.approx(1.6)
    assert stated["prewhitened"]["condition_number"] == pytest.approx(np.linalg.cond(covariance), rel=0.1)


def test_whitening_without_noise_is_refused(tmp_path):
    path = write_scan(
        tmp_path / "a.h5", acquisitions_of(random_kspace((1, 2, 6, 8)), ("slice",)), scan_header((8, 6, 1))
    )
    with pytest.raises(FormatError, match=r"a\.h5: noise readouts: expected some, to whiten the coils, got none"):
        read(path, noise="prewhiten")


def test_noise_of_other_coils_is_left_out(tmp_path):
    made = [
        acquisition(random_kspace((5, 32)), flags=(NOISE,)),
        *acquisitions_of(random_kspace((1, 2, 6, 8)), ("slice",)),
    ]
    elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 6, 1))))[1]
    assert list(elements) == ["kspace"]
    assert elements["kspace"][1].attributes["left_out"] == {"noise of other coils": 1}


BAD = {
    "no trajectory": ({}, {"trajectory": "radial"}, r"trajectory: expected 2 or 3 axes, got \[0\] axes"),
    "epi": ({}, {"trajectory": "epi"}, "readouts: expected one direction, got echo-planar imaging"),
    "alternating": ({"reverse": True}, {}, "readouts: expected one direction, got reversed"),
    "ragged": ({"ragged": True}, {}, "readouts: expected one shape"),
    "outside": ({}, {"matrix": (8, 4, 1)}, r"lines of k-space: expected rows 0 \.\. 3, got rows 0 \.\. 5"),
    "echo outside": ({"center_sample": 1}, {}, r"echo: expected samples around their centre within 8 columns"),
    "all discarded": ({"discard_pre": 5, "discard_post": 3}, {}, "readouts: expected samples that are not discarded"),
    "other encoding": ({"encoding_space_ref": 1}, {}, "encoding: expected readouts of the first encoding"),
    "noise only": ({"flags": (NOISE,)}, {}, "acquisitions: expected imaging readouts, got 6 others"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_scans_are_refused(tmp_path, case):
    head, header, message = BAD[case]
    head = dict(head)
    reverse, ragged = head.pop("reverse", False), head.pop("ragged", False)
    made = acquisitions_of(random_kspace((1, 2, 6, 8)), ("slice",), **head)
    if reverse:
        for readout in made[::2]:
            readout.set_flag(REVERSE)
    if ragged:
        made.append(acquisition(random_kspace((2, 6)), counters={"kspace_encode_step_1": 3}))
    xml = scan_header(**{"matrix": (8, 6, 1), **header})
    with pytest.raises(FormatError, match=rf"a\.h5: {message}"):
        read(write_scan(tmp_path / "a.h5", made, xml))


def test_values_that_are_not_finite_are_named(tmp_path):
    kspace = random_kspace((2, 2, 6, 8))
    kspace[1, 1, 2, 3] = np.nan
    path = write_scan(tmp_path / "a.h5", acquisitions_of(kspace, ("slice",)), scan_header((8, 6, 1)))
    with pytest.raises(NonFiniteError, match=r"a\.h5: readout of slice 1, line 2: expected finite numbers"):
        read(path)


def test_no_patient_reaches_the_cohort(tmp_path):
    made = [
        acquisition(random_kspace((2, 32)), flags=(NOISE,)),
        *acquisitions_of(random_kspace((1, 2, 6, 8)), ("slice",)),
    ]
    path = write_scan(tmp_path / f"{PATIENT}.h5", made, scan_header((8, 6, 1)), group=f"{NAME} knee")
    summary = convert([path], tmp_path / "cohort", progress=False)
    assert summary.ok
    cohort = open_cohort(tmp_path / "cohort")
    (volume,) = [cohort[name] for name in cohort.volume_ids()]
    assert list(volume.elements()) == ["kspace", "noise"]
    for file in (tmp_path / "cohort").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for personal in (NAME, PATIENT, "Planted", "knee"):
            assert personal.encode() not in file.relative_to(tmp_path).as_posix().encode() + content, file
