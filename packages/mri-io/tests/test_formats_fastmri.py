"""The fastMRI layout: arrays as they lie, parameters of the header, pseudonyms, and what is refused."""

import h5py
import numpy as np
import pytest

from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace, write_fastmri, xml_header


def read(path):
    (item,) = find_items([path])
    assert item.format == "fastmri"
    raw = get_format("fastmri").read(item)
    return raw, {e.path: np.concatenate(list(e.blocks())) for e in raw.elements}, get_format("fastmri").identify(item)


def test_multi_coil_file_with_mask_and_reconstruction(tmp_path):
    kspace = random_kspace((3, 4, 20, 16))
    mask = np.arange(16) % 4 == 1
    rss = np.abs(random_kspace((3, 16, 16))[..., :])
    path = write_fastmri(tmp_path / "file1000.h5", kspace, mask=mask, rss=rss, patient=PATIENT)
    raw, arrays, identity = read(path)
    np.testing.assert_array_equal(arrays["kspace"], kspace)
    np.testing.assert_array_equal(arrays["mask/acquired"], mask)
    np.testing.assert_array_equal(arrays["recon/rss"], rss)
    elements = {e.path: e for e in raw.elements}
    assert elements["mask/acquired"].dims == ("kx",)
    assert elements["mask/acquired"].attributes["acceleration"] == 4.0
    assert elements["recon/rss"].dtype == np.float32
    assert identity.acquisition == "AXT2"
    assert PATIENT not in identity.subject
    # One patient, one pseudonym, whatever the file is called.
    again = read(write_fastmri(tmp_path / "file2000.h5", kspace))[2]  # named in the XML header only
    assert again.subject == identity.subject != read(write_fastmri(tmp_path / "b.h5", kspace, patient="x"))[2].subject


def test_kspace_is_read_slice_by_slice(tmp_path):
    path = write_fastmri(tmp_path / "sub-01.h5", random_kspace((3, 2, 8, 8)))
    raw, _, identity = read(path)
    assert [block.shape for block in raw.elements[0].blocks()] == [(1, 2, 8, 8)] * 3
    assert identity.subject == "sub-01"


def test_single_coil_gets_a_coil_axis(tmp_path):
    kspace = random_kspace((3, 20, 16))
    _, arrays, _ = read(write_fastmri(tmp_path / "a.h5", kspace))
    np.testing.assert_array_equal(arrays["kspace"], kspace[:, None])


def test_header_in_si_units_and_deidentified(tmp_path):
    # The padding is what fastMRI's own reader computes: encoded y // 2 - centre, and that plus maximum + 1.
    xml = xml_header(640, 372, rx=320, last=321, centre=160)
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), xml=xml)
    raw, _, _ = read(path)
    header = raw.header
    # The header's x is the readout, which lies along the rows.
    assert header.encoded_matrix == (372, 640, 1)
    assert header.recon_matrix == (372, 320, 1)
    assert header.encoded_fov_m == pytest.approx((0.22, 0.44, 0.0075))
    assert header.te_s == pytest.approx((0.01, 0.02))
    assert header.tr_s == pytest.approx((0.5,))
    assert header.flip_angle_rad == pytest.approx((np.pi / 2,))
    assert (header.field_T, header.vendor, header.sequence) == (2.8936, "SIEMENS", "AXT2")
    assert (header.padding_left, header.padding_right) == (26, 348)
    kept = raw.attributes["ismrmrd_xml"]
    assert "<systemVendor>SIEMENS" in kept
    assert "<encodedSpace>" in kept
    for personal in (NAME, PATIENT, "1950", "2011", "Planted Hospital", "knee"):
        assert personal not in kept


def test_broken_xml_is_not_kept(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), xml=f"<a><patientName>{NAME}</b>")
    assert NAME not in str(read(path)[0])


def test_mask_of_the_wrong_length_is_refused(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 16)), mask=np.ones(12))
    with pytest.raises(FormatError, match=r"a\.h5: mask length: expected 16 columns, got 12"):
        read(path)


def test_hdf5_without_kspace_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(FormatError, match=r"a\.h5: data set: expected 'kspace' .*, got weights"):
        read(tmp_path / "a.h5")


def test_truncated_file_is_refused(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((4, 4, 32, 32)))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(FormatError, match=r"a\.h5: expected a readable HDF5 file.*truncated"):
        read(path)


def test_real_valued_kspace_is_refused(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", np.zeros((4, 218, 24)))
    with pytest.raises(FormatError, match="kspace: expected complex"):
        read(path)


def test_content_counts_not_the_name(tmp_path):
    path = write_fastmri(tmp_path / "scan.nii.gz", random_kspace((1, 2, 8, 8)))
    assert find_items([path])[0].format == "fastmri"
