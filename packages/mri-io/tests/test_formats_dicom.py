"""DICOM: values and geometry against SimpleITK, nibabel and highdicom, series, damage, refusals, patients."""

import re
import warnings
from hashlib import sha256

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.store import open_cohort
from mri_io.testing.affines import ORIENTATIONS, affine
from mri_io.testing.dicom_files import PLANTED, uid, write_enhanced, write_seg, write_series
from mri_io.testing.raw_files import PATIENT

# Voxel (x, y, slice) to RAS+; those with a negative determinant have slices against the normal of their images.
AFFINES = {
    "axial": affine(np.diag([-1.5, -1.2, 4]), (90, 126, -72)),
    "axial downwards": affine(np.diag([-1.5, -1.2, -4]), (90, 126, 72)),
    **ORIENTATIONS,
}
AXIAL = AFFINES["axial"]
SHAPE = (5, 6, 7)


def numbers(shape=SHAPE, seed=0, dtype=np.uint16):
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(max(limits.min, -2000), 4000, shape).astype(dtype)


def read(path):
    (item,) = find_items([path])
    return read_item(item)


def read_item(item):
    assert item.format == "dicom"
    assert not item.problem, item.problem
    raw = get_format("dicom").read(item)
    arrays = {
        e.path: np.concatenate([b.reshape(-1, *e.shape[-2:]) for b in e.blocks()]).reshape(e.shape)
        for e in raw.elements
    }
    return raw, arrays


def image_of(path):
    raw, arrays = read(path)
    return raw.elements[0], arrays[raw.elements[0].path]


def message(path):
    (item,) = find_items([path])
    if item.problem:
        return item.problem
    with pytest.raises(FormatError) as error:
        read_item(item)
    return str(error.value)


def in_order(array, matrix):
    """Return array and affine with slices along the normal of the images."""
    if np.linalg.det(matrix[:3, :3]) > 0:
        return array, matrix
    flip = np.diag([1.0, 1, -1, 1])
    flip[2, 3] = len(array) - 1
    return array[::-1], matrix @ flip


@pytest.mark.parametrize("name", AFFINES)
def test_series_agree_with_what_was_written_and_with_itk(tmp_path, name):
    array = numbers()
    write_series(tmp_path, array, AFFINES[name], order=[3, 0, 4, 1, 2])
    element, found = image_of(tmp_path)
    expected, matrix = in_order(array, AFFINES[name])
    assert (element.path, element.dims) == ("image/t2", ("slice", "y", "x"))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(element.affine, matrix, atol=1e-5)
    # ITK finds the order of slices and the geometry on its own.
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = SimpleITK.ReadImage(files)
    np.testing.assert_array_equal(found, SimpleITK.GetArrayFromImage(image))
    for index in ((0, 0, 0), (6, 5, 4), (1, 2, 3)):
        lps = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(
            (element.affine @ [*index, 1])[:3], [-lps[0], -lps[1], lps[2]], atol=1e-4, err_msg=str(index)
        )


def test_single_slices_agree_with_nibabel(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_file
    (file,) = write_series(tmp_path, numbers((1, 6, 7)), AFFINES["oblique"], tags={"SpacingBetweenSlices": "3.5"})
    element, found = image_of(file)
    wrapper = wrapper_from_file(file)
    # nibabel's voxels are (row, column, slice) and its world is LPS.
    theirs = np.diag([-1.0, -1, 1, 1]) @ wrapper.affine[:, [1, 0, 2, 3]]
    np.testing.assert_allclose(element.affine[:, :2], theirs[:, :2], atol=1e-6)
    np.testing.assert_allclose(element.affine[:, 3], theirs[:, 3], atol=1e-6)
    np.testing.assert_array_equal(found[0], wrapper.get_data())
    assert np.linalg.norm(element.affine[:3, 2]) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("dtype", "scale", "expected"),
    [
        (np.uint16, None, np.float32),  # 65535 would not fit int16
        (np.int16, None, np.int16),
        (np.int16, (1, -1000), np.float32),
        (np.uint8, (2, -100), np.int16),
        (np.int16, (0.25, 10), np.float32),
    ],
)
def test_rescale_slope_and_intercept(tmp_path, dtype, scale, expected):
    array = np.random.default_rng(1).integers(0, 200, SHAPE).astype(dtype)
    array[0, 0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    write_series(tmp_path, array, AXIAL, scale=scale)
    element, found = image_of(tmp_path)
    slope, intercept = scale or (1, 0)
    assert element.dtype == found.dtype == expected
    np.testing.assert_array_equal(found, array * float(slope) + intercept)
    np.testing.assert_array_equal(found, [_scaled(tmp_path / f"IM{k:04d}.dcm") for k in range(5)])


def _scaled(path):
    dataset = pydicom.dcmread(path)
    return pydicom.pixels.apply_rescale(dataset.pixel_array, dataset)


def test_twelve_bits_are_int16(tmp_path):
    write_series(tmp_path, numbers(), AXIAL, tags={"BitsStored": 12, "HighBit": 11})
    assert image_of(tmp_path)[0].dtype == np.int16


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_transfer_syntaxes(tmp_path, syntax):
    array = numbers()
    write_series(tmp_path, array, AXIAL, syntax=syntax)
    np.testing.assert_array_equal(image_of(tmp_path)[1], array)


@pytest.mark.parametrize("compress", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_pixels(tmp_path, compress):
    array = numbers((2, 64, 72))
    write_series(tmp_path, array, AXIAL, compress=compress)
    np.testing.assert_array_equal(image_of(tmp_path)[1], array)


@pytest.mark.parametrize("codec", ["JPEG", "JPEGLossless"])
def test_jpeg(tmp_path, codec):
    array = np.add.outer(np.arange(2) * 20, np.add.outer(np.arange(32), np.arange(40))).astype(np.uint8)
    for file in write_series(tmp_path / "in", array, AXIAL):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import gdcm
        reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(file))
        assert reader.Read()
        kinds = {
            "JPEG": gdcm.TransferSyntax.JPEGBaselineProcess1,
            "JPEGLossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        }
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[codec]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        (tmp_path / "out").mkdir(exist_ok=True)
        writer.SetFileName(str(tmp_path / "out" / file.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    found = image_of(tmp_path / "out")[1]
    np.testing.assert_allclose(found, array, atol=2 if codec == "JPEG" else 0)


def test_files_without_preamble(tmp_path):
    array = numbers()
    for file in write_series(tmp_path, array, AXIAL, syntax=ImplicitVRLittleEndian):
        dataset = pydicom.dcmread(file)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(file, enforce_file_format=False, implicit_vr=True, little_endian=True)
        assert file.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(image_of(tmp_path)[1], array)


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"\x08\0\x05\0CS", b"\x08\0" * 300, bytes(range(256)) * 4])
def test_other_files_are_not_taken_for_dicom(tmp_path, content):
    (tmp_path / "other.dcm").write_bytes(content)
    assert not get_format("dicom").sniff(tmp_path / "other.dcm")


def test_dicomdir_is_passed_over(tmp_path):
    write_series(tmp_path, numbers(), AXIAL)
    head = bytearray((tmp_path / "IM0000.dcm").read_bytes())
    (tmp_path / "DICOMDIR").write_bytes(
        bytes(head[:140]) + b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10" + bytes(head[140:])
    )
    (item,) = find_items([tmp_path])
    assert len(item.files) == 5


def test_files_of_a_series_may_be_given_one_by_one(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    for sources in (files, files[::-1], [tmp_path, *files], [*files, tmp_path]):
        (item,) = find_items(sources)
        assert item.files == tuple(files)


# Series


def test_echoes(tmp_path):
    arrays = [numbers(seed=seed) for seed in range(3)]
    for te, array in zip((40, 12, 26), arrays, strict=True):
        write_series(tmp_path, array, AXIAL, prefix=f"E{te}", tags={"EchoTime": te, "EchoNumbers": te})
    raw, found = read(tmp_path)
    (element,) = raw.elements
    assert element.dims == ("echo", "slice", "y", "x")
    np.testing.assert_array_equal(found[element.path], [arrays[1], arrays[2], arrays[0]])
    assert raw.header.te_s == pytest.approx((0.012, 0.026, 0.04))


@pytest.mark.parametrize(
    "keyword", ["TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "AcquisitionTime"]
)
def test_frames(tmp_path, keyword):
    arrays = [numbers(seed=seed) for seed in range(3)]
    for time in (2, 0, 1):
        value = f"10111{time}.25" if keyword == "AcquisitionTime" else time + 1
        tags = {keyword: value, "AcquisitionDate": "20111111"}
        write_series(tmp_path, arrays[time], AFFINES["axial downwards"], prefix=f"{(time * 7 + 3) % 5}", tags=tags)
    element, found = image_of(tmp_path)
    assert element.dims == ("frame", "slice", "y", "x")
    np.testing.assert_array_equal(found, np.stack(arrays)[:, ::-1])


def test_frames_and_echoes(tmp_path):
    array = numbers((2, 3, *SHAPE))
    for frame in range(2):
        for echo in range(3):
            tags = {"EchoTime": 10 * echo + 5, "TemporalPositionIdentifier": frame + 1}
            write_series(tmp_path, array[frame, echo], AXIAL, prefix=f"{echo}{frame}", tags=tags)
    element, found = image_of(tmp_path)
    assert element.dims == ("frame", "echo", "slice", "y", "x")
    np.testing.assert_array_equal(found, array)


def test_echoes_of_unequal_number_are_volumes_of_their_own(tmp_path):
    for frame, echo in ((0, 0), (1, 0), (0, 1)):
        tags = {"EchoTime": 10 * echo + 5, "TemporalPositionIdentifier": frame + 1}
        write_series(tmp_path, numbers(seed=frame + 2 * echo), AXIAL, prefix=f"{echo}{frame}", tags=tags)
    assert [read_item(item)[0].elements[0].shape for item in find_items([tmp_path])] == [(2, *SHAPE), SHAPE]


def diffusion(folder, volumes, **more):
    for index, (b_value, direction) in enumerate(volumes):
        tags = {"DiffusionBValue": float(b_value), "AcquisitionNumber": index + 1, **more}
        if direction:
            tags["DiffusionGradientOrientation"] = [float(v) for v in direction]
        write_series(folder, numbers(seed=index), AXIAL, prefix=f"D{index}", tags=tags)


def test_diffusion_weightings_are_sets(tmp_path):
    diffusion(tmp_path, [(1000, (0, 1, 0)), (0, None), (1000, (1, 0, 0))])
    element, found = image_of(tmp_path)
    assert (element.path, element.dims) == ("image/dwi", ("set", "slice", "y", "x"))
    np.testing.assert_array_equal(found, [numbers(seed=seed) for seed in (1, 0, 2)])
    assert element.attributes["b_values_s_mm2"] == [0, 1000, 1000]
    # The patient's x and y point to the left and back in DICOM.
    assert element.attributes["b_directions_ras"] == [None, [0, -1, 0], [-1, 0, 0]]


def test_repeated_weightings_are_sets_in_order_of_time(tmp_path):
    diffusion(tmp_path, [(0, None), (1000, (0, 1, 0)), (0, None), (1000, (1, 0, 0))])
    element, found = image_of(tmp_path)
    assert element.dims == ("set", "slice", "y", "x")
    assert element.attributes["b_values_s_mm2"] == [0, 1000, 0, 1000]
    np.testing.assert_array_equal(found, [numbers(seed=seed) for seed in range(4)])


def test_averages_of_weightings_are_frames_of_sets(tmp_path):
    diffusion(tmp_path, [(0, None), (800, None), (0, None), (800, None)])
    element, found = image_of(tmp_path)
    assert element.dims == ("set", "frame", "slice", "y", "x")
    np.testing.assert_array_equal(found, [[numbers(seed=s) for s in pair] for pair in ((0, 2), (1, 3))])


def test_phase_and_other_orientations_are_volumes_of_their_own(tmp_path):
    write_series(tmp_path, numbers(seed=0), AXIAL, prefix="A")
    write_series(tmp_path, numbers(seed=1), AXIAL, prefix="B", tags={"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]})
    write_series(tmp_path, numbers(seed=2), AFFINES["coronal"], prefix="C")
    write_series(tmp_path, numbers(seed=3), AXIAL, prefix="D", series="another")
    items = find_items([tmp_path])
    found = [image_of_item(item) for item in items]
    assert [path for path, _ in found] == ["image/t2", "image/t2-phase", "image/t2", "image/t2"]
    for seed, (_, array) in enumerate(found):
        np.testing.assert_array_equal(array, numbers(seed=seed))
    assert [get_format("dicom").identify(item).acquisition for item in items] == ["t2", "t2phase", "t2", "t2"]
    assert len({item.options["group"] for item in items}) == 4


def image_of_item(item):
    raw, arrays = read_item(item)
    return raw.elements[0].path, arrays[raw.elements[0].path]


def private(folder, values, **more):
    """Write a series, and add private elements (tag, value representation, value) to its files."""
    for file in write_series(folder, numbers(), AXIAL, **more):
        dataset = pydicom.dcmread(file)
        for tag, kind, value in values:
            dataset.add_new(tag, kind, value)
        dataset.save_as(file)


def test_weightings_in_private_elements(tmp_path):
    for index, b_value in enumerate((0, 700)):
        values = [(0x00190010, "LO", "SIEMENS MR HEADER"), (0x0019100C, "IS", b_value)]
        values += [(0x0019100E, "FD", [0.0, 0.6, 0.8])] if b_value else []
        private(tmp_path / "siemens", values, prefix=f"S{index}", tags={"AcquisitionNumber": index + 1})
        values = [(0x00430010, "LO", "GEMS_PARM_01"), (0x00431039, "IS", [10**9 + b_value, 8, 0, 0])]
        private(tmp_path / "ge", values, prefix=f"G{index}", tags={"AcquisitionNumber": index + 1})
    attributes = image_of(tmp_path / "siemens")[0].attributes
    assert attributes["b_values_s_mm2"] == [0, 700]
    assert attributes["b_directions_ras"] == [None, pytest.approx([0, -0.6, 0.8])]
    assert image_of(tmp_path / "ge")[0].attributes["b_values_s_mm2"] == [0, 700]


def test_private_scale_and_kind_of_image(tmp_path):
    private(tmp_path / "a", [(0x20050010, "LO", "Philips MR Imaging DD 001"), (0x2005100E, "FL", 0.5)], scale=(4, 0))
    element, found = image_of(tmp_path / "a")
    assert element.attributes["philips_scale_slope"] == 2
    np.testing.assert_array_equal(found, numbers() * 4.0)  # left as the rescale slope gives it
    private(tmp_path / "b", [(0x00430010, "LO", "GEMS_PARM_01"), (0x0043102F, "SS", 3)])
    assert image_of(tmp_path / "b")[0].path == "image/t2-imag"


def test_slices_that_are_shifted_in_plane_keep_their_place(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    for index, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.ImagePositionPatient[0] += 0.5 * index
        dataset.save_as(file)
    element = image_of(tmp_path)[0]
    for index, file in enumerate(files):
        x, y, z = pydicom.dcmread(file).ImagePositionPatient
        np.testing.assert_allclose((element.affine @ [0, 0, index, 1])[:3], [-x, -y, z], atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"EchoTime": 10, "RepetitionTime": 500}, "t1"),
        ({"EchoTime": 20, "RepetitionTime": 3000}, "pd"),
        ({"ScanningSequence": ["SE", "IR"], "InversionTime": 2500}, "flair"),
        ({"ScanningSequence": "EP"}, "epi"),
        ({"ScanningSequence": "GR"}, "gre"),
        ({"ScanningSequence": ["GR", "IR"]}, "t1"),
        ({"AngioFlag": "Y"}, "angio"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]}, "adc"),
        ({"ScanningSequence": "RM"}, "dicom"),
        ({"ScanningSequence": "", "EchoTime": None}, "dicom"),
    ],
)
def test_contrasts_follow_from_parameters(tmp_path, tags, expected):
    write_series(tmp_path, numbers(), AXIAL, tags=tags)
    assert image_of(tmp_path)[0].path == f"image/{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Siemens Healthineers", "SIEMENS"), ("GE MEDICAL SYSTEMS", "GE"), ("TOSHIBA_MEC", "Toshiba"), ("Dr Gerd", None)],
)
def test_makers_are_those_known(tmp_path, text, expected):
    write_series(tmp_path, numbers(), AXIAL, tags={"Manufacturer": text})
    assert read(tmp_path)[0].header.vendor == expected


# Enhanced objects and mosaics


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["oblique", "axial downwards"])
def test_enhanced_multi_frame(tmp_path, name, compress):
    array = numbers((3, 2, *SHAPE), dtype=np.int16)
    order = np.random.default_rng(0).permutation(30)
    write_enhanced(tmp_path / "a.dcm", array, AFFINES[name], order=order, echo_times=(8.5, 30), compress=compress)
    raw, found = read(tmp_path / "a.dcm")
    (element,) = raw.elements
    expected, matrix = in_order(array.transpose(2, 0, 1, 3, 4), AFFINES[name])
    assert (element.path, element.dims) == ("image/t2", ("frame", "echo", "slice", "y", "x"))
    np.testing.assert_array_equal(found[element.path], expected.transpose(1, 2, 0, 3, 4))
    np.testing.assert_allclose(element.affine, matrix, atol=1e-5)
    assert raw.header.te_s == pytest.approx((0.0085, 0.03))
    assert raw.header.tr_s == (2.0,)
    assert raw.header.flip_angle_rad == pytest.approx((np.pi / 2,))


def test_enhanced_frames_agree_with_highdicom(tmp_path):
    import highdicom

    array = numbers((1, 1, *SHAPE), dtype=np.int16)
    write_enhanced(tmp_path / "a.dcm", array, AFFINES["oblique"], scale=(0.5, 3), order=[4, 2, 0, 1, 3])
    element, found = image_of(tmp_path / "a.dcm")
    volume = highdicom.imread(tmp_path / "a.dcm").get_volume()
    theirs = np.diag([-1.0, -1, 1, 1]) @ volume.affine[:, [2, 1, 0, 3]]
    matrix = theirs if np.linalg.det(theirs[:3, :3]) > 0 else in_order(volume.array, theirs)[1]
    np.testing.assert_allclose(element.affine, matrix, atol=1e-5)
    np.testing.assert_array_equal(found, array[0, 0] * 0.5 + 3)


def test_enhanced_object_with_too_few_descriptions_is_refused(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", numbers((1, 1, *SHAPE)), AXIAL)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 1000000
    dataset.save_as(path)
    assert "frames described: expected 1000000, got 5" in message(path)


@pytest.mark.realdata
@pytest.mark.parametrize("series", ["mr_0003", "mr_0004", "mr_0005", "mr_0006"])
def test_mosaics_agree_with_nibabel(real_data, series):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import MosaicWrapper, wrapper_from_file
    folder = real_data / "dicom" / "siemens_epi" / series
    element, found = image_of(folder)
    assert element.dims == ("frame", "slice", "y", "x")
    for frame, file in enumerate(sorted(folder.glob("*.dcm"))):
        wrapper = wrapper_from_file(file)
        assert isinstance(wrapper, MosaicWrapper)
        data, theirs = wrapper.get_data(), np.diag([-1.0, -1, 1, 1]) @ wrapper.affine[:, [1, 0, 2, 3]]
        expected, matrix = in_order(data.transpose(2, 0, 1), theirs)
        np.testing.assert_array_equal(found[frame], expected)
        np.testing.assert_allclose(element.affine, matrix, atol=1e-6)


@pytest.mark.realdata
def test_a_mosaic_against_the_normal_of_its_slices(real_data, tmp_path):
    file = next((real_data / "dicom" / "siemens_epi" / "mr_0003").glob("*.dcm"))
    forward, array = image_of(file)
    dataset = pydicom.dcmread(file)
    # The last of the normal's three texts, 1.0, becomes -1.0.
    csa = bytearray(dataset[0x00291010].value)
    start = csa.index(b"SliceNormalVector\0")
    at = csa.index(b"1.00000000\0", start)
    csa[at : at + 11] = b"-1.0000000\0"
    dataset[0x00291010].value = bytes(csa)
    dataset.save_as(tmp_path / "a.dcm")
    backward, flipped = image_of(tmp_path / "a.dcm")
    np.testing.assert_array_equal(flipped, array[::-1])
    # The first tile stays where it was, and the others lie below it.
    np.testing.assert_allclose(backward.affine @ [0, 0, 4, 1], forward.affine @ [0, 0, 0, 1])


@pytest.mark.realdata
def test_a_mosaic_without_its_private_header_is_refused(real_data, tmp_path):
    dataset = pydicom.dcmread(next((real_data / "dicom" / "siemens_epi" / "mr_0003").glob("*.dcm")))
    dataset.remove_private_tags()
    dataset.save_as(tmp_path / "a.dcm")
    assert "mosaic: expected the CSA header, got none" in message(tmp_path / "a.dcm")


@pytest.mark.realdata
def test_real_files_in_several_transfer_syntaxes_are_alike(real_data):
    folder = real_data / "dicom" / "small"
    arrays = [image_of(folder / f"MR_small{name}.dcm")[1] for name in ("", "_RLE", "_bigendian")]
    np.testing.assert_array_equal(arrays[0][0], pydicom.dcmread(folder / "MR_small.dcm").pixel_array)
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])
    assert "MR_truncated.dcm: the pixels cannot be read" in message(folder / "MR_truncated.dcm")


# What is refused


def test_missing_slices_are_named(tmp_path):
    write_series(tmp_path, numbers((9, 6, 7)), AXIAL, skip=(3, 6, 7))
    found = message(tmp_path)
    assert "expected slices every 4 mm, got 6 slices, 3 missing" in found
    assert "1 between IM0002.dcm and IM0004.dcm; 2 between IM0005.dcm and IM0008.dcm" in found


def test_uneven_slices_are_refused(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    dataset = pydicom.dcmread(files[2])
    dataset.ImagePositionPatient[2] += 1.3
    dataset.save_as(files[2])
    assert "expected on a line, evenly spaced, got distances of 2.7 to 5.3 mm" in message(tmp_path)


def test_copies_of_a_file_are_read_once(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    (tmp_path / "copy.dcm").write_bytes(files[2].read_bytes())
    (item,) = find_items([tmp_path])
    assert len(item.files) == len(files)


def test_two_images_of_one_slice_are_refused(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    dataset = pydicom.dcmread(files[2])
    dataset.SOPInstanceUID += ".1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(tmp_path / "copy.dcm")
    found = message(tmp_path)
    assert "that nothing tells apart: expected 1, got 2" in found
    assert "IM0002.dcm" in found
    assert "copy.dcm" in found


@pytest.mark.realdata
def test_one_image_in_several_transfer_syntaxes_gives_several_volumes(real_data, tmp_path):
    summary = convert([real_data / "dicom" / "small"], tmp_path / "c", progress=False)
    (failure,) = summary.failures
    assert "MR_truncated.dcm" in failure.error
    images = [volume["image/t2"].numpy() for volume in open_cohort(tmp_path / "c").volumes()]
    assert len(images) == 3
    assert all(np.array_equal(image, images[0]) for image in images)


def test_a_frame_without_one_slice_is_refused(tmp_path):
    for time in range(3):
        tags = {"TemporalPositionIdentifier": time + 1}
        write_series(tmp_path, numbers(), AXIAL, prefix=f"{time}", tags=tags, skip=(4,) if time == 2 else ())
    assert "images of each slice: expected 3 as of the others, got 2 at position" in message(tmp_path)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "CT"}, "modality: expected MR, got CT"),
        ({"Modality": "SR"}, r"got SR .* hold no image"),
        ({"Modality": "RTSTRUCT"}, "convert them to DICOM SEG"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "expected grey values, got RGB"),
        ({"ImagePositionPatient": None}, "geometry: expected image position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two orthogonal unit vectors"),
        ({"PixelSpacing": [0, 1]}, "geometry"),
        ({"Rows": 65535, "Columns": 65535}, "matrix: expected at most"),
        ({"Rows": 600, "Columns": 700}, "pixels cannot be read"),
        ({"NumberOfFrames": 20}, "20 frames and no functional groups"),
        ({"BitsAllocated": 32}, "bits per pixel: expected 8 or 16, got 32"),
        ({"BitsStored": 60000}, "bits stored per pixel: expected 1 to 16, got 60000"),
    ],
)
def test_refusals_name_what_was_found(tmp_path, tags, expected):
    write_series(tmp_path, numbers((1, 6, 7)), AXIAL, tags=tags)
    found = message(tmp_path)
    assert found.startswith(str(tmp_path))
    assert re.search(expected, found), found


def test_an_image_without_pixels_is_refused(tmp_path):
    (file,) = write_series(tmp_path, numbers((1, 6, 7)), AXIAL)
    dataset = pydicom.dcmread(file)
    del dataset.PixelData
    dataset.save_as(file)
    assert "pixels cannot be read" in message(file)


@pytest.mark.parametrize("part", [0.05, 0.2, 0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["classic", "compressed", "enhanced"])
def test_truncated_files_give_format_errors(tmp_path, part, kind):
    path = tmp_path / "a.dcm"
    if kind == "enhanced":
        write_enhanced(path, numbers((1, 1, *SHAPE)), AXIAL)
    else:
        compress = RLELossless if kind == "compressed" else ""
        path = write_series(tmp_path, numbers((1, 60, 70)), AXIAL, compress=compress)[0]
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    for item in find_items([path]):
        assert item.problem or _fails(item)


def _fails(item):
    with pytest.raises(FormatError):
        read_item(item)
    return True


def test_flipped_bytes_give_format_errors_or_an_image(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", numbers((1, 1, 3, 4, 4)), AXIAL)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(120):
        damaged = bytearray(content)
        for at in random.integers(132, len(content) - 96, 3):
            damaged[at] = random.integers(256)
        path.write_bytes(bytes(damaged))
        for item in find_items([path]):
            if not item.problem:
                try:
                    get_format("dicom").identify(item)
                    read_item(item)
                except FormatError:
                    pass


# Damage and anonymisation within a series


@pytest.mark.parametrize("instance", ["", "2.25.1"])
def test_instances_that_are_not_named_apart_are_slices(tmp_path, instance):
    files = write_series(tmp_path, numbers(), AXIAL, tags={"SOPInstanceUID": instance})
    (tmp_path / "copy.dcm").write_bytes(files[2].read_bytes())
    element, found = image_of(tmp_path)
    np.testing.assert_array_equal(found, numbers())
    np.testing.assert_allclose(element.affine, AXIAL, atol=1e-5)


def test_frames_without_instance_are_told_apart_by_time(tmp_path):
    for time in range(3):
        tags = {"TemporalPositionIdentifier": time + 1, "SOPInstanceUID": ""}
        write_series(tmp_path, numbers(seed=time), AXIAL, prefix=f"{time}", tags=tags)
    element, found = image_of(tmp_path)
    assert element.dims == ("frame", "slice", "y", "x")
    np.testing.assert_array_equal(found, [numbers(seed=time) for time in range(3)])


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e300"])
@pytest.mark.parametrize("element", [b"position", b"spacing"])
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_geometry_that_is_not_finite_is_refused(tmp_path, value, element, kind):
    path, position = tmp_path / "a.dcm", "123.456"
    if kind == "enhanced":
        write_enhanced(path, numbers((1, 1, *SHAPE)), AXIAL)
        dataset = pydicom.dcmread(path)
        groups = dataset.PerFrameFunctionalGroupsSequence[2]
        shared = dataset.SharedFunctionalGroupsSequence[0]
        place = next(g.PlanePositionSequence[0] for g in (groups, shared) if "PlanePositionSequence" in g)
        measures = next(g.PixelMeasuresSequence[0] for g in (groups, shared) if "PixelMeasuresSequence" in g)
    else:
        path = write_series(tmp_path, numbers((3, 6, 7)), AXIAL)[1]
        dataset = place = measures = pydicom.dcmread(path)
    if element == b"position":
        place.ImagePositionPatient = [1, position, 2]
    else:
        measures.PixelSpacing = [1, position]
    dataset.save_as(path)
    content = path.read_bytes()
    assert content.count(position.encode()) == 1
    path.write_bytes(content.replace(position.encode(), value.rjust(len(position)).encode()))
    items = find_items([tmp_path])
    problems = [item.problem for item in items if item.problem]
    assert len(problems) == 1
    assert re.search(r"geometry.*: expected numbers up to 1e\+06 mm, got", problems[0])
    assert not [item for item in items if not item.problem and not _fails(item)]


def damage(path, how):
    content = bytearray(path.read_bytes())
    behind = 144 + int.from_bytes(content[140:144], "little")
    if how == "overwritten":
        content[behind : behind + 300] = bytes([0xA5]) * 300
    elif how == "zeroed":
        content[behind:] = bytes(len(content) - behind)
    elif how == "cut":
        del content[behind + 40 :]
    else:  # behind the series' UID and before the matrix
        del content[content.index(b"\x20\x00\x32\x00") :]
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["overwritten", "zeroed", "cut", "cut late"])
@pytest.mark.parametrize("last", [0, 3])
def test_a_series_with_a_damaged_file_is_held_back(tmp_path, how, last):
    files = write_series(tmp_path / "in" / "a", numbers((4, 6, 7)), AXIAL)
    write_series(tmp_path / "in" / "b", numbers(), AXIAL, series="other")
    damage(files[last], how)
    summary = convert([tmp_path / "in"], tmp_path / "c", progress=False)
    (volume,) = open_cohort(tmp_path / "c").volumes()
    np.testing.assert_array_equal(volume["image/t2"].numpy(), numbers())
    first, second = sorted((failure.error for failure in summary.failures), key=lambda text: "series:" in text)
    assert re.search("damaged|truncated", first)
    assert f"got {files[last].name}, which is damaged and may be one of its slices" in second


def test_only_the_series_that_a_damaged_file_names_is_held_back(tmp_path):
    files = write_series(tmp_path, numbers((4, 6, 7)), AXIAL)
    write_series(tmp_path, numbers(), AXIAL, series="other", prefix="B")
    write_enhanced(tmp_path / "c.dcm", numbers((1, 1, *SHAPE), seed=2), AXIAL)
    damage(files[3], "cut late")
    assert sorted(_outcome(item) for item in find_items([tmp_path])) == ["read", "read", "refused", "refused"]
    damage(files[3], "zeroed")
    assert sorted(_outcome(item) for item in find_items([tmp_path])) == ["read", "refused", "refused", "refused"]


def _outcome(item):
    return "refused" if item.problem or (item.options["refused"] and _fails(item)) else "read"


# Segmentations


@pytest.mark.parametrize("name", ["oblique", "axial downwards", "sagittal"])
def test_segmentations_become_labels_of_their_series(tmp_path, name):
    files = write_series(tmp_path, numbers(), AFFINES[name], order=[3, 0, 4, 1, 2])
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:4, 1:6], labels[2:4, 4, 3:] = 1, 3
    write_seg(
        tmp_path / "seg.dcm",
        (labels[..., None] == [1, 2, 3]).astype(np.uint8),
        files,
        {1: "gland", 2: "none", 3: f"of {PATIENT}"},
    )
    raw, found = read(tmp_path)
    element = raw.elements[1]
    assert element.path == "seg/mr-seg"
    np.testing.assert_array_equal(found["seg/mr-seg"], in_order(labels, AFFINES[name])[0])
    np.testing.assert_array_equal(element.affine, raw.elements[0].affine)
    assert element.labels[1] == {"name": "gland", "code": "SCT 85756007"}
    assert element.labels[3]["name"] == "Tissue"  # a label that names the patient is not taken


def test_the_name_in_a_segmentation_of_an_unnamed_series_is_known(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2, 2] = 1
    write_seg(tmp_path / "seg.dcm", labels, files, {1: f"of {PATIENT}"})
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.PatientID = dataset.PatientName = dataset.OtherPatientNames = dataset.PatientBirthName = ""
        dataset.save_as(path)
    assert read(tmp_path)[0].elements[1].labels[1]["name"] == "Tissue"


def test_overlapping_segments_become_maps_of_their_own(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    segments = np.zeros((*SHAPE, 2), np.uint8)
    segments[1:4, 1:5, 1:5, 0], segments[2:3, 2:3, 2:6, 1] = 1, 1
    write_seg(tmp_path / "seg.dcm", segments, files, {1: "gland", 2: "tumour"}, content_label="PROSTATE")
    _, found = read(tmp_path)
    np.testing.assert_array_equal(found["seg/prostate-1"], segments[..., 0])
    np.testing.assert_array_equal(found["seg/prostate-2"], 2 * segments[..., 1])


def test_a_segmentation_without_its_series_is_refused(tmp_path):
    files = write_series(tmp_path / "images", numbers(), AXIAL)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2, 2] = 1
    path = write_seg(tmp_path / "seg.dcm", labels, files, {1: "gland"})
    assert "expected the series that it was made from in the same source" in message(path)


def test_a_fractional_segmentation_is_refused(tmp_path):
    files = write_series(tmp_path, numbers(), AXIAL)
    write_seg(tmp_path / "seg.dcm", np.full(SHAPE, 0.5), files, {1: "gland"}, segmentation_type="FRACTIONAL")
    assert "segmentation type: expected BINARY or LABELMAP, got FRACTIONAL" in message(tmp_path)


# The store


def test_header(tmp_path):
    tags = {
        "InversionTime": 150,
        "MRAcquisitionType": "2D",
        "AcquisitionMatrix": [0, 6, 7, 0],
        "SequenceName": "*tse2d1_15",
    }
    write_series(tmp_path, numbers(), AXIAL, tags=tags)
    header = read(tmp_path)[0].header
    assert header.recon_matrix == (7, 6, 5)
    assert header.recon_fov_m == pytest.approx((7 * 1.5e-3, 6 * 1.2e-3, 0.02))
    assert header.encoded_matrix == (6, 7, 1)
    assert (header.te_s, header.tr_s, header.ti_s) == ((0.09,), (4.0,), (0.15,))
    assert header.flip_angle_rad == pytest.approx((2 * np.pi / 3,))
    assert (header.field_T, header.vendor, header.sequence) == (3.0, "SIEMENS", "*tse2d1_15")


def test_nothing_of_the_patient_reaches_the_store(tmp_path):
    source, cohort = tmp_path / "source", tmp_path / "cohort"
    files = write_series(source / "Plantedname", numbers(), AXIAL, scale=(0.5, 1))
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2, 2] = 1
    write_seg(source / "Plantedname" / "seg.dcm", labels, files, {1: f"{PATIENT} lesion"})
    write_enhanced(source / f"{PATIENT}.dcm", numbers((2, 1, *SHAPE), dtype=np.int16), AXIAL)
    write_series(source / "bad", numbers(), AXIAL, series="bad", skip=(2,), prefix=PATIENT)
    summary = convert([source], cohort, progress=False)
    assert len(summary.failures) == 1
    opened = open_cohort(cohort)
    ids = sorted(opened.volume_ids())
    assert len(ids) == 2
    assert len({opened[volume].subject_id for volume in ids}) == 1
    content = [str(p.relative_to(cohort)) for p in cohort.rglob("*")]
    content += [p.read_bytes().decode("latin1") for p in cohort.rglob("*") if p.is_file()]
    for text in content:
        for planted in PLANTED:
            assert planted not in text.lower()
    stored = opened[next(v for v in ids if "seg/mr-seg" in opened[v].elements())]
    source_of = stored.attributes["dicom_source"]
    expected = [sha256(pydicom.dcmread(file).SOPInstanceUID.encode()).hexdigest() for file in files]
    assert source_of["instances_sha256"] == expected
    assert source_of["series_sha256"] == sha256(uid("series").encode()).hexdigest()
    again = convert([source], cohort, progress=False)
    assert [row["status"] for row in again.results] == ["skipped", "skipped"]


@pytest.mark.parametrize("nobody", [{}, {"PatientID": "anonymous", "PatientName": "Anonymous^Patient"}])
def test_series_of_one_study_are_of_one_subject_when_nobody_is_named(tmp_path, nobody):
    source, cohort = tmp_path / "source", tmp_path / "cohort"
    unnamed = {"PatientID": "", "PatientName": "", **nobody}
    for study, series in (("a", "t1"), ("a", "t2"), ("b", "t1")):
        tags = {**unnamed, "StudyInstanceUID": uid(study)}
        write_series(source / study / series, numbers(), AXIAL, series=study + series, tags=tags)
    # One that fails, in a folder that is named after the study.
    tags = {**unnamed, "StudyInstanceUID": uid("a")}
    write_series(source / uid("a"), numbers(), AXIAL, series="bad", skip=(2,), tags=tags)
    assert len(convert([source], cohort, progress=False).failures) == 1
    opened = open_cohort(cohort)
    subjects = [opened[volume].subject_id for volume in opened.volume_ids()]
    assert sorted(map(subjects.count, set(subjects))) == [1, 2]
    for path in cohort.rglob("*"):
        assert uid("a") not in str(path) + (path.read_bytes().decode("latin1") if path.is_file() else "")
    again = convert([source], cohort, progress=False)
    assert [row["status"] for row in again.results] == ["skipped"] * 3


def subject_of(path, **options):
    return get_format("dicom").identify(find_items([path], **options)[0]).subject


def test_an_enhanced_object_and_a_segmentation_are_of_the_subject_of_their_study(tmp_path):
    unnamed = {"PatientID": "", "PatientName": "", "StudyInstanceUID": uid("study")}
    files = write_series(tmp_path / "series", numbers(), AXIAL, tags=unnamed)
    enhanced = write_enhanced(tmp_path / "enhanced.dcm", numbers((1, 1, *SHAPE), dtype=np.int16), AXIAL)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 2, 2] = 1
    seg = write_seg(tmp_path / "seg" / "seg.dcm", labels, files, {1: "gland"})
    for path in (enhanced, seg):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = dataset.PatientName = ""
        dataset.save_as(path)
    subjects = {subject_of(path) for path in (tmp_path / "series", enhanced, seg)}  # the last by itself is refused
    assert len(subjects) == 1
    assert len(find_items([tmp_path])) == 2  # and with its series it is of that volume


@pytest.mark.parametrize("study", ["", "0", "anonymous", "1.2"])
def test_a_study_that_is_not_named_is_of_no_one(tmp_path, study):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags = {"PatientID": "", "PatientName": "", "StudyInstanceUID": study}
        write_series(tmp_path / "p1", numbers(), AXIAL, series="1", tags=tags)
        write_series(tmp_path / "p2", numbers(), AXIAL, series="2", tags=tags)
        assert subject_of(tmp_path / "p1") != subject_of(tmp_path / "p2")


def test_a_bids_name_and_a_subject_folder_come_before_the_study(tmp_path):
    unnamed = {"PatientID": "", "PatientName": ""}
    write_series(tmp_path / "sub-07" / "t1", numbers(), AXIAL, tags=unnamed)
    write_series(tmp_path / "sub-08" / "t1", numbers(), AXIAL, tags=unnamed, prefix="sub-09_T1w")
    assert subject_of(tmp_path / "sub-07") == "sub-07"
    assert subject_of(tmp_path / "sub-08") == "sub-09"
