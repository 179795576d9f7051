"""The fastMRI layouts: arrays as they lie, parameters of the header, pseudonyms, and what is refused."""

import re

import h5py
import ismrmrd
import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.formats.hdf5 import rows_at_once
from mri_io.formats.kspace.xml_header import deidentified_xml
from mri_io.schema import Header
from mri_io.testing.hdf5_files import write_fastmri_file
from mri_io.testing.ismrmrd_files import scan_header
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace, write_fastmri, xml_header

SHAPE = (3, 4, 20, 16)


def read(path, format="fastmri"):
    (item,) = find_items([path])
    assert item.format == format
    reader = get_format(format)
    identity = reader.identify(item)
    raw = reader.read(item)
    arrays = {e.path: np.concatenate(list(e.blocks())) for e in raw.elements}
    return raw, arrays, identity


def test_multi_coil_file_with_mask_and_reconstruction(tmp_path):
    kspace = random_kspace(SHAPE)
    mask = np.arange(16) % 4 == 1
    rss = np.abs(random_kspace((3, 16, 16)))
    path = write_fastmri(tmp_path / "file1000.h5", kspace, mask=mask, rss=rss, patient=PATIENT)
    raw, arrays, identity = read(path)
    np.testing.assert_array_equal(arrays["kspace"], kspace)
    np.testing.assert_array_equal(arrays["mask/acquired"], mask)
    np.testing.assert_array_equal(arrays["recon/rss"], rss)
    elements = {e.path: e for e in raw.elements}
    assert elements["mask/acquired"].dims == ("kx",)
    assert elements["mask/acquired"].attributes["acceleration"] == 4.0
    assert elements["recon/rss"].dtype == np.float32
    assert elements["recon/rss"].attributes == {"volume_max": 1.0, "volume_norm": 2.0}
    assert identity.acquisition == raw.attributes["acquisition"] == "AXT2"
    assert PATIENT not in identity.subject
    # One patient, one pseudonym, whatever the file is called.
    again = read(write_fastmri(tmp_path / "file2000.h5", kspace))[2]  # named in the XML header only
    assert again.subject == identity.subject != read(write_fastmri(tmp_path / "b.h5", kspace, patient="x7"))[2].subject


def test_single_coil_validation_file_with_both_reconstructions(tmp_path):
    kspace = random_kspace((3, 20, 16))
    images = {
        f"reconstruction_{kind}": np.full((3, 8, 8), value, np.float32) for kind, value in (("esc", 1), ("rss", 2))
    }
    attributes = {"max": np.float64(0.5), "norm": np.float64(7.25)}
    raw, arrays, identity = read(write_fastmri_file(tmp_path / "file1.h5", kspace, attributes=attributes, **images))
    np.testing.assert_array_equal(arrays["kspace"], kspace[:, None])
    assert arrays.keys() == {"kspace", "recon/esc", "recon/rss"}
    assert (arrays["recon/esc"].max(), arrays["recon/rss"].max()) == (1, 2)
    assert [e.attributes for e in raw.elements[1:]] == [{"volume_max": 0.5, "volume_norm": 7.25}] * 2
    assert (raw.attributes["acquisition"], identity.acquisition) == ("CORPD_FBK", "CORPDFBK")
    assert convert([tmp_path / "file1.h5"], tmp_path / "c", progress=False).ok


@pytest.mark.parametrize("shape", [(16,), (1, 1, 16, 1), (1, 16), (20, 16), (1, 20, 16)])
def test_challenge_files_hold_a_mask_and_no_reference(tmp_path, shape):
    mask = np.random.default_rng(1).random(shape) < 0.4
    points = mask.size > 16
    kspace = random_kspace(SHAPE) * mask.reshape((20, 16) if points else 16)
    attributes = {"acceleration": 4, "num_low_frequency": np.int64(2)}
    path = write_fastmri_file(tmp_path / "file1.h5", kspace, mask=mask, attributes=attributes)
    raw, arrays, _ = read(path)
    assert arrays.keys() == {"kspace", "mask/acquired"}
    np.testing.assert_array_equal(arrays["mask/acquired"].ravel(), mask.ravel())
    element = raw.elements[1]
    assert (element.dtype, element.dims) == (np.uint8, ("ky", "kx") if points else ("kx",))
    assert element.attributes == {"acceleration": mask.size / mask.sum(), "num_low_frequency": 2.0}
    assert convert([path], tmp_path / "c", progress=False).ok


PROSTATE = (3, 4, 5, 12, 9)  # averages, slices, coils, readout, phase encoding


def prostate(path, **arrays):
    kspace = random_kspace(PROSTATE)
    kspace[::2, ..., ::2] = 0
    kspace[1, ..., 1::2] = 0
    calibration = random_kspace((4, 5, 12, 4))
    return kspace, write_fastmri_file(path, kspace, calibration_data=calibration, **arrays)


def test_averages_of_a_prostate_file_are_frames(tmp_path):
    kspace, path = prostate(tmp_path / "file_prostate_AXT2_001.h5", reconstruction_rss=np.ones((4, 8, 8), np.float32))
    (item,) = find_items([path])
    raw = get_format("fastmri").read(item)
    assert raw.elements[0].dims == ("frame", "slice", "coil", "ky", "kx")
    assert {block.shape[1:] for block in raw.elements[0].blocks()} == {PROSTATE[2:]}
    assert convert([path], tmp_path / "c", progress=False).ok
    (volume,) = open_cohort(tmp_path / "c").volumes()
    np.testing.assert_array_equal(volume["kspace"].numpy(), kspace)
    odd = np.arange(9) % 2
    np.testing.assert_array_equal(volume["mask/acquired"].numpy(), [odd, 1 - odd, odd])
    assert volume["mask/acquired"].dims == ("frame", "kx")
    assert volume["recon/rss"].shape == (4, 8, 8)
    assert volume.source.uri == "file_prostate_AXT2_001.h5"


def test_echo_planar_prostate_files_are_refused_by_name(tmp_path):
    _, path = prostate(tmp_path / "a.h5", coil_sens_maps=random_kspace((4, 5, 12, 9)))
    with pytest.raises(FormatError, match="echo-planar readouts of the fastMRI prostate diffusion scans"):
        read(path)


def test_five_dimensions_of_nothing_known_are_refused(tmp_path):
    path = write_fastmri_file(tmp_path / "a.h5", random_kspace(PROSTATE))
    with pytest.raises(
        FormatError, match=r"or with 'calibration_data' \(averages, .* got complex64 \(3, 4, 5, 12, 9\)"
    ):
        read(path)


@pytest.mark.parametrize(
    "options",
    [{"chunks": (1, 4, 20, 16)}, {"chunks": (2, 4, 5, 8), "compression": "gzip", "shuffle": True}, {"chunks": SHAPE}],
)
def test_chunked_and_compressed_arrays(tmp_path, options):
    kspace = random_kspace(SHAPE)
    path = write_fastmri_file(tmp_path / "a.h5", (kspace, options)[0], mask=(np.ones(16), {"compression": "lzf"}))
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file.create_dataset("kspace", data=kspace, **options)
    _, arrays, _ = read(path)
    np.testing.assert_array_equal(arrays["kspace"], kspace)


def test_blocks_are_whole_chunks_of_bounded_size(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layouts = {"contiguous": None, "slices": (1, 1024, 1024), "pairs": (3, 256, 256), "deep": (24, 128, 128)}
        rows = {
            name: rows_at_once(file.create_dataset(name, (24, 1024, 1024), "c8", chunks=chunks))
            for name, chunks in layouts.items()
        }
    assert rows == {"contiguous": 4, "slices": 4, "pairs": 3, "deep": 24}  # rows of 8 MiB


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


def test_words_of_a_patient_are_not_kept_at_any_depth(tmp_path):
    xml = xml_header(8, 8)
    for old, new in {
        "<encoding>": f'<encoding note="{NAME}"><remark>{NAME}</remark>{NAME}',
        "<matrixSize>": f"<matrixSize><x>{PATIENT}</x><note>of {PATIENT}</note>",
        "<trajectory>": f"<trajectoryDescription><identifier>{NAME}</identifier></trajectoryDescription><trajectory>",
        "<sequenceParameters>": f"<sequenceParameters><userComment>{NAME}</userComment><operator>{NAME}</operator>",
        "<TR>500": f"<TR unit='{NAME}'>500",
        "AXT2": "AXT2 of DOE, plantedname",
        "<systemFieldStrength_T>": "<coilLabel><coilNumber>1</coilNumber><coilName>Head:plantedname:H1</coilName>"
        "</coilLabel><systemFieldStrength_T>",
        "<ismrmrdHeader": f'<ismrmrdHeader xmlns:a="{PATIENT}" a:b="{NAME}"',
    }.items():
        assert old in xml
        xml = xml.replace(old, new, 1)
    raw, _, _ = read(write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), xml=xml))
    kept = raw.attributes["ismrmrd_xml"]
    for personal in ("doe", "plantedname", PATIENT.lower(), "remark", "operator", "note", "identifier"):
        assert personal not in str(raw).lower(), personal
    assert "<sequence_type>AXT2</sequence_type>" in kept
    assert "<coilName>Head_H1</coilName>" in kept
    assert "<TR>500</TR>" in kept
    assert "<y>8</y>" in kept


def test_all_that_the_schema_has_of_the_scan_is_kept(tmp_path):
    # Elements of the scan's sections come back as they were, through the schema's own parser.
    xml = scan_header((8, 6, 1), te_ms=(3, 5), vendor="Philips", channels=4)
    text = deidentified_xml(xml)
    before, after = (ismrmrd.xsd.CreateFromDocument(one) for one in (xml, text))
    before.acquisitionSystemInformation.institutionName = None
    for section in ("acquisitionSystemInformation", "experimentalConditions", "encoding", "sequenceParameters"):
        assert getattr(after, section) == getattr(before, section)
    assert deidentified_xml(text) == text


def test_broken_xml_is_not_kept(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), xml=f"<a><patientName>{NAME}</b>")
    assert NAME not in str(read(path)[0])


@pytest.mark.parametrize(("old", "new"), [("<y>220</y>", "<y>H20</y>"), ("<center>4", "<center>c")])
def test_headers_with_what_is_no_number_state_nothing(tmp_path, old, new):
    xml = xml_header(8, 8)
    assert old in xml
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), xml=xml.replace(old, new))
    assert read(path)[0].header == Header()


def test_text_that_is_no_text(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), patient="QQPATIENTQQ")
    content = path.read_bytes()
    assert content.count(b"QQPATIENTQQ") == 1
    path.write_bytes(content.replace(b"QQPATIENTQQ", b"QQPA\xfdIENTQQ"))
    assert read(path)[2].subject.startswith("sub-")


def test_what_the_header_says_of_the_patient_is_not_in_the_record_of_failures(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    write_fastmri(folder / "a.h5", random_kspace((1, 2, 8, 16)), mask=np.ones(12), patient=PATIENT)
    (failure,) = convert([folder], tmp_path / "c", progress=False).failures
    (row,) = open_cohort(tmp_path / "c").failures()
    assert NAME in failure.error  # the name of the folder
    assert NAME not in row["error"] + row["item"] + row["traceback"]


def test_of_an_acquisition_of_free_text_known_words_are_kept(tmp_path):
    for text, kept in ((f"knee of {NAME}", "knee"), (f"of {NAME}", None), ("Plantedname", None), ("AXT2", "AXT2")):
        path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 8, 8)), acquisition=text)
        raw, _, identity = read(path)
        assert raw.attributes.get("acquisition") == kept
        assert identity.acquisition == (kept or "fastmri")


def without_data(path, shape=(30000, 16, 6400, 3680), **options):
    """Declare far more than the file holds, as an interrupted writer leaves it; 90 TB."""
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", shape, "c8", **options)


def packed_zeros(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (64, 1, 1024, 128), "c8", chunks=(64, 1, 1024, 128), compression="gzip")
        file["kspace"][:] = 0
        assert file["kspace"].id.get_storage_size() < file["kspace"].nbytes / 900


def partly_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", SHAPE, "c8", chunks=(1, *SHAPE[1:]))
        file["kspace"][:2] = 1


def elsewhere(path):
    write_fastmri_file(path.with_name("other.h5"), random_kspace(SHAPE))
    with h5py.File(path, "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "kspace")


def virtual(path):
    write_fastmri_file(path.with_name("other.h5"), random_kspace(SHAPE))
    layout = h5py.VirtualLayout(SHAPE, "c8")
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "kspace", shape=SHAPE)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("kspace", layout)


def raw_bytes(path):
    path.with_name("other.bin").write_bytes(bytes(random_kspace(SHAPE)))
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", SHAPE, "c8", external=[(str(path.with_name("other.bin")), 0, h5py.h5f.UNLIMITED)])


def array(name, data, base=True):
    def make(path):
        if base:
            write_fastmri_file(path, random_kspace(SHAPE))
        with h5py.File(path, "a") as file:
            file.pop(name, None)
            file[name] = data

    return make


REFUSED = {
    "nothing written": (without_data, r"kspace: expected \d+ bytes of data, got 0 bytes.*Its writer was interrupted"),
    "a part written": (partly_written, r"kspace: expected 3 chunks of data, got 2 chunks"),
    "zeros packed": (
        packed_zeros,
        r"kspace unpacked: expected at most 200 times the \d+ bytes .*, got 67108864 bytes",
    ),
    "a link to another file": (elsewhere, r"kspace: expected data in the file itself, got a reference to another file"),
    "a virtual array": (virtual, "kspace: expected data in the file itself"),
    "data in another file": (raw_bytes, "kspace: expected data in the file itself"),
    "text": (array("kspace", "hello"), "kspace: expected an array of numbers, got object"),
    "real numbers": (array("kspace", np.zeros((4, 218, 24))), "kspace: expected complex"),
    "a short mask": (array("mask", np.ones(12)), r"mask length: expected 16 columns, got 12"),
    "a folded mask": (array("mask", np.ones((2, 8))), r"mask length: expected 16 columns, or \(20, 16\) points"),
    "a flat reconstruction": (array("reconstruction_rss", np.ones((8, 8))), r"reconstruction_rss: expected \(slices, "),
    "a header of numbers": (array("ismrmrd_header", np.ones(3)), "ismrmrd_header: expected one string, got an array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    make, message = REFUSED[case]
    make(tmp_path / "a.h5")
    with pytest.raises(FormatError, match=r"a\.h5: " + message):
        read(tmp_path / "a.h5")
    (item,) = find_items([tmp_path / "a.h5"])
    assert get_format("fastmri").memory(item) > 0


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.update({"weights": np.zeros(3)}), r"data set: expected 'kspace' .*, got weights \(3,\)"),
        (lambda file: file.create_group("a/b"), r"data set: expected 'kspace' .*, got a\. This HDF5 file holds no k"),
        (lambda file: None, r"data set: expected 'kspace' .*, got an empty file"),
    ],
)
def test_hdf5_that_no_reader_knows_is_named(tmp_path, write, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(FormatError, match=r"a\.h5: " + message):
        read(tmp_path / "a.h5", "hdf5")
    (failure,) = convert([tmp_path], tmp_path / "c", progress=False).failures
    assert re.search(message, failure.error)


def test_truncated_file_is_refused(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace((4, 4, 32, 32)))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(FormatError, match=r"a\.h5: expected a readable HDF5 file.*truncated"):
        read(path, "hdf5")


def test_content_counts_not_the_name(tmp_path):
    path = write_fastmri(tmp_path / "scan.nii.gz", random_kspace((1, 2, 8, 8)))
    assert find_items([path])[0].format == "fastmri"
