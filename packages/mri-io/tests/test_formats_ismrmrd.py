"""ISMRMRD: readouts sorted into k-space; noise, averages, oversampling, partial Fourier; refusals by name."""

import ismrmrd
import numpy as np
import pytest

from mri_io.errors import FormatError, NonFiniteError
from mri_io.formats import find_items, get_format
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace, write_ismrmrd, xml_header

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT


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


def read(path):
    (item,) = find_items([path])
    assert item.format == "ismrmrd"
    raw = get_format("ismrmrd").read(item)
    return raw, {e.path: (np.concatenate(list(e.blocks())), e) for e in raw.elements}


def test_multi_slice_with_noise_scans(tmp_path):
    kspace = random_kspace((3, 4, 10, 16))
    noise = (random_kspace((4, 32), seed=9), {}, (NOISE,))
    path = write_ismrmrd(tmp_path / "a.h5", [noise, *readouts(kspace)], xml_header(16, 10))
    path.chmod(0o444)  # raw data often are
    raw, elements = read(path)
    np.testing.assert_array_equal(elements["kspace"][0], kspace)
    assert list(elements) == ["kspace"]
    assert elements["kspace"][1].attributes == {"averages": 1, "oversampling_removed": 1.0}
    assert raw.header.te_s == pytest.approx((0.01, 0.02))
    identity = get_format("ismrmrd").identify(find_items([path])[0])
    assert identity.acquisition == "AXT2"
    assert PATIENT not in identity.subject + str(raw)
    assert NAME not in str(raw)


def test_averages_are_averaged(tmp_path):
    first, second = random_kspace((1, 2, 6, 8)), random_kspace((1, 2, 6, 8), seed=1)
    both = [*readouts(first, average=0), *readouts(second, average=1)]
    _, elements = read(write_ismrmrd(tmp_path / "a.h5", both, xml_header(8, 6)))
    np.testing.assert_allclose(elements["kspace"][0], (first + second) / 2, rtol=1e-6)
    assert elements["kspace"][1].attributes["averages"] == 2


def test_oversampling_is_removed_and_stated(tmp_path):
    image = random_kspace((1, 2, 6, 16))
    wide = np.zeros((1, 2, 6, 32), np.complex64)
    wide[..., 8:24] = image
    oversampled = centred(np.fft.fft, wide).astype(np.complex64)
    _, elements = read(write_ismrmrd(tmp_path / "a.h5", readouts(oversampled), xml_header(32, 6, rx=16)))
    kspace, element = elements["kspace"]
    np.testing.assert_allclose(centred(np.fft.ifft, kspace), image, atol=1e-5)
    assert element.attributes["oversampling_removed"] == 2.0


def test_undersampling_gives_a_mask(tmp_path):
    kspace = random_kspace((2, 2, 12, 8))
    _, elements = read(write_ismrmrd(tmp_path / "a.h5", readouts(kspace, lines=range(0, 12, 3)), xml_header(8, 12)))
    mask, element = elements["mask/acquired"]
    assert element.dims == ("ky",)
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


def test_data_sets_of_one_file_are_volumes(tmp_path):
    path = tmp_path / "a.h5"
    for group in ("scan1", "scan2"):
        write_ismrmrd(path, readouts(random_kspace((1, 2, 6, 8))), xml_header(8, 6), group=group)
    assert [item.label for item in find_items([path])] == ["a.h5:scan1", "a.h5:scan2"]


@pytest.mark.parametrize("counter", ["kspace_encode_step_2", "contrast", "phase", "repetition", "set"])
def test_more_than_2d_is_refused_by_name(tmp_path, counter):
    kspace = random_kspace((1, 2, 6, 8))
    both = [*readouts(kspace), *readouts(kspace, **{counter: 1})]
    with pytest.raises(FormatError, match=rf"a\.h5: counter {counter}: expected one value, got \(0, 1\)"):
        read(write_ismrmrd(tmp_path / "a.h5", both, xml_header(8, 6)))


def test_other_bad_files_are_refused(tmp_path):
    kspace = random_kspace((1, 2, 6, 8))
    nan = kspace.copy()
    nan[0, 1, 2, 3] = np.nan
    reverse = [(data, idx, (ismrmrd.ACQ_IS_REVERSE,)) for data, idx, _ in readouts(kspace)]
    ragged = [*readouts(kspace), (random_kspace((2, 6)), {"kspace_encode_step_1": 3}, ())]
    noise = [(data, idx, (NOISE,)) for data, idx, _ in readouts(kspace)]
    xml = xml_header(8, 6)
    cases = [
        (readouts(kspace), xml_header(8, 6, trajectory="radial"), FormatError, "trajectory: expected cartesian, got r"),
        (readouts(nan), xml, NonFiniteError, "readout of slice 0, line 2: expected finite numbers"),
        (reverse, xml, FormatError, "readouts: expected one direction, got reversed"),
        (ragged, xml, FormatError, r"readouts: expected one shape"),
        (noise, xml, FormatError, "acquisitions: expected imaging readouts, got 6 others"),
        (
            readouts(kspace),
            xml_header(8, 4),
            FormatError,
            r"lines of k-space: expected rows 0 \.\. 3, got rows 0 \.\. 5",
        ),
    ]
    for number, (data, header, error, message) in enumerate(cases):
        with pytest.raises(error, match=rf"{number}\.h5: {message}"):
            read(write_ismrmrd(tmp_path / f"{number}.h5", data, header))
