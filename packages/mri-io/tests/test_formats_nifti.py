"""NIfTI: arrays transposed, affines unchanged to the last bit, compared with what nibabel reads."""

import gzip
import json

import nibabel
import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.errors import FormatError, NonFiniteError
from mri_io.export import export
from mri_io.formats import find_items, get_format
from mri_io.schema import Provenance
from mri_io.store import create_cohort
from mri_io.testing.image_files import AFFINES, box, image, nibabel_data, read_one, values, volumes
from mri_io.testing.raw_files import NAME, write_nifti


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip_through_the_store(tmp_path, name, suffix):
    array = np.random.default_rng(0).normal(size=(7, 6, 5)).astype(np.float32)
    path = write_nifti(tmp_path / f"sub-01_T1w{suffix}", array, AFFINES[name])
    (item,) = find_items([path])
    (element,) = get_format("nifti").read(item).elements
    stored = next(element.blocks())
    assert element.path == "image/t1w"
    np.testing.assert_array_equal(stored, array.transpose(2, 1, 0))
    np.testing.assert_array_equal(element.affine, nibabel.load(path).affine)
    with create_cohort(tmp_path / "c").create_volume("sub-01_acq-a_run-1", subject_id="sub-01") as volume:
        made = Provenance.of("mri-io", "test")
        volume.write(element.path, stored, provenance=made, dims=element.dims, affine=element.affine)
    (file,) = export(volume[element.path], tmp_path / "out", "nifti")
    image, original = nibabel.load(file), nibabel.load(path)
    np.testing.assert_array_equal(image.affine, original.affine)
    np.testing.assert_array_equal(image.get_fdata(), original.get_fdata())
    assert nibabel.aff2axcodes(image.affine) == nibabel.aff2axcodes(original.affine)
    assert image.header.get_zooms() == pytest.approx(original.header.get_zooms(), rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("uint8", "int16"), ("int16", "int16"), ("int32", "int16"), ("float64", "float32")]
)
def test_dtypes(tmp_path, dtype, expected):
    (element,) = (
        get_format("nifti")
        .read(find_items([write_nifti(tmp_path / "a.nii.gz", np.ones((4, 3, 2), dtype))])[0])
        .elements
    )
    assert element.dtype == expected


def test_large_integers_and_scaled_ones_become_float(tmp_path):
    big = np.full((2, 2, 2), 40000, np.int32)
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "b.nii")
    for path in (write_nifti(tmp_path / "a.nii", big), tmp_path / "b.nii"):
        (element,) = get_format("nifti").read(find_items([path])[0]).elements
        assert element.dtype == np.float32
        np.testing.assert_array_equal(next(element.blocks()).T, nibabel.load(path).get_fdata())


@pytest.mark.parametrize(
    ("name", "subject", "contrast"),
    [
        ("sub-07_ses-2_T2w.nii.gz", "sub-07", "t2w"),
        ("sub-07/anat/flair.nii", "sub-07", "flair"),
        (f"{NAME}_t1_crop.nii.gz", None, "t1"),
        (f"{NAME}.nii", None, "image"),
    ],
)
def test_identity_takes_no_names_of_persons(tmp_path, name, subject, contrast):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (item,) = find_items([write_nifti(path, np.ones((3, 3, 3), np.float32))])
    identity = get_format("nifti").identify(item)
    assert identity.acquisition == contrast
    assert subject in (None, identity.subject)
    assert "Doe" not in identity.subject + str(get_format("nifti").read(item))


def test_files_of_one_name_in_two_folders_are_two_subjects(tmp_path):
    found = set()
    for folder in ("001", "002"):
        (tmp_path / folder).mkdir()
        path = write_nifti(tmp_path / folder / "t2.nii.gz", np.ones((3, 3, 3), np.float32))
        found.add(get_format("nifti").identify(find_items([path])[0]).subject)
    assert len(found) == 2


def test_series_stand_in_front(tmp_path):
    for name, shape, dims in (
        ("a.nii.gz", (7, 6, 5, 4), ("frame",)),
        ("b.nii", (7, 6, 1, 4), ("frame",)),
        ("c.nii", (7, 6, 5, 1, 3), ("set",)),
        ("d.nii.gz", (7, 6, 5, 2, 3), ("set", "frame")),
        ("e.nii", (7, 6), ()),
        ("f.nii", (7, 6, 5, 1, 1), ()),
    ):
        array = image(shape)
        path = write_nifti(tmp_path / name, array)
        _, raw = read_one(path)
        (element,) = raw.elements
        assert element.dims == (*dims, "slice", "y", "x")
        expected = array.reshape(*shape, *[1] * (5 - len(shape))).T  # (set, frame, slice, y, x)
        np.testing.assert_array_equal(values(element), expected.reshape(element.shape))
        assert raw.header.recon_matrix == (7, 6, shape[2] if len(shape) > 2 else 1)


def test_the_time_between_frames_is_stated(tmp_path):
    written = nibabel.Nifti1Image(image((4, 4, 3, 5)), np.eye(4))
    written.header.set_xyzt_units("mm", "msec")
    written.header.set_zooms((1, 1, 1, 2500))
    nibabel.save(written, tmp_path / "a.nii")
    assert read_one(tmp_path / "a.nii")[1].elements[0].attributes["frame_step_s"] == 2.5


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1), ("unknown", 1)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair])
def test_positions_in_other_units_become_mm(tmp_path, unit, factor, kind):
    made = kind(image(), np.diag([1 / factor] * 3 + [1]) @ AFFINES["oblique"])
    made.header.set_xyzt_units(unit, "sec")
    path = tmp_path / ("a.hdr" if kind is nibabel.Nifti1Pair else "a.nii")
    nibabel.save(made, path)
    _, raw = read_one(path)
    np.testing.assert_allclose(raw.elements[0].affine, AFFINES["oblique"], rtol=1e-5, atol=1e-5)
    size = np.linalg.norm(AFFINES["oblique"][:3, :3], axis=0) / 1000
    assert raw.header.recon_fov_m == pytest.approx(tuple(size * [7, 6, 5]), rel=1e-5)


def test_nifti_2_pairs_and_byte_orders(tmp_path):
    array = image(dtype=np.int16)
    for kind, name in (
        (nibabel.Nifti2Image, "two.nii.gz"),
        (nibabel.Nifti1Pair, "one.img"),
        (nibabel.Nifti2Pair, "p.img"),
    ):
        nibabel.save(kind(array, AFFINES["oblique"]), tmp_path / name)
    swapped = nibabel.Nifti1Image(array, AFFINES["oblique"], nibabel.Nifti1Header(endianness=">"))
    swapped.set_data_dtype(np.int16)
    nibabel.save(swapped, tmp_path / "big.nii")
    items = find_items([tmp_path])
    assert [item.path.name for item in items] == ["big.nii", "one.hdr", "p.hdr", "two.nii.gz"]
    assert [len(item.files) for item in items] == [1, 2, 2, 1]
    for item in items:
        (element,) = get_format("nifti").read(item).elements
        assert element.dtype == np.int16
        np.testing.assert_array_equal(values(element), array.T)
        np.testing.assert_allclose(element.affine, AFFINES["oblique"], atol=1e-6)
    (tmp_path / "one.img").unlink()
    with pytest.raises(FormatError, match=r"one\.img: expected beside one\.hdr, found no file"):
        read_one(tmp_path / "one.hdr")


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "anatomical.nii"])
def test_files_of_other_makers(name):
    path = nibabel_data(name)
    _, raw = read_one(path)
    original = nibabel.load(path)
    np.testing.assert_array_equal(values(raw.elements[0]), original.get_fdata(dtype=np.float32).T)
    np.testing.assert_array_equal(raw.elements[0].affine, original.affine)


def test_blocks_stay_small_and_the_file_is_read_in_one_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("mri_io.formats.images.files.BLOCK_BYTES", 2 * 7 * 6 * 8)
    array = image((7, 6, 5, 3))
    path = write_nifti(tmp_path / "a.nii.gz", array)
    item, raw = read_one(path)
    blocks = list(raw.elements[0].blocks())
    assert [len(block) for block in blocks] == [2, 2, 1] * 3
    np.testing.assert_array_equal(np.concatenate(blocks).reshape(3, 5, 6, 7), array.T)
    assert get_format("nifti").memory(item) < 10_000


def test_an_orientation_that_is_not_stated_is_said_to_be_assumed(tmp_path):
    stated = write_nifti(tmp_path / "a.nii", image())
    unstated = nibabel.Nifti1Image(image(), None)
    nibabel.save(unstated, tmp_path / "b.nii")
    assert "orientation" not in read_one(stated)[1].elements[0].attributes
    assert "assumed" in read_one(tmp_path / "b.nii")[1].elements[0].attributes["orientation"]


def test_label_maps_beside_an_image_become_its_labels(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_nifti(folder / f"{NAME}_t1.nii.gz", image(), AFFINES["oblique"])
    write_nifti(folder / f"{NAME}_t1_seg-manual.nii.gz", box(dtype=np.float32, ids=(1, 300)), AFFINES["oblique"])
    write_nifti(folder / f"{NAME}_t1_lesion.nii", box(), AFFINES["oblique"])
    (folder / "labels.json").write_text('{"lesion": {"1": "infarct"}}')
    summary = convert([folder], tmp_path / "c", progress=False)
    assert not summary.failures
    (volume,) = volumes(tmp_path / "c")
    assert set(volume.elements()) == {"image/t1", "seg/seg-manual", "seg/lesion"}
    seg = volume["seg/seg-manual"]
    np.testing.assert_array_equal(np.asarray(seg[...]), box(dtype=np.uint16, ids=(1, 300)).T)
    assert {key: entry["name"] for key, entry in seg.labels.items()} == {1: "label 1", 300: "label 300"}
    assert [entry["name"] for entry in volume["seg/lesion"].labels.values()] == ["infarct"]
    for file in (tmp_path / "c" / "volumes").rglob("zarr.json"):
        assert NAME.split("^")[1] not in file.read_text()
    again = convert([folder], tmp_path / "c", progress=False, labels=folder)  # they are joined once
    assert [result["status"] for result in again.results] == ["skipped"]


def test_sidecars_tell_of_the_acquisition_and_of_labels(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_nifti(folder / "a_t1.nii.gz", image())
    write_nifti(folder / "a_t1_seg.nii.gz", box())
    stated = {"EchoTime": 0.003, "RepetitionTime": 2, "FlipAngle": 90, "MagneticFieldStrength": 3, "Manufacturer": "GE"}
    sidecar = folder / "a_t1.json"
    sidecar.write_text(json.dumps({**stated, "PatientName": NAME, "InstitutionName": NAME}))
    (folder / "a_t1_seg.json").write_text('{"Labels": {"1": {"name": "cord"}}}')
    item, raw = read_one(folder)
    assert sidecar in item.files
    header = raw.header
    assert (header.te_s, header.tr_s, header.field_T, header.vendor) == ((0.003,), (2.0,), 3.0, "GE")
    assert header.flip_angle_rad == pytest.approx((np.pi / 2,))
    assert raw.elements[1].labels == {1: "cord"}
    assert not convert([folder], tmp_path / "c", progress=False).failures
    for file in (tmp_path / "c" / "volumes").rglob("zarr.json"):
        assert NAME.split("^")[1] not in file.read_text()
    for text, message in (
        ("{", "a_t1.json: expected the JSON sidecar"),
        ('{"EchoTime": "x"}', "EchoTime: expected a number"),
    ):
        sidecar.write_text(text)
        with pytest.raises(FormatError, match=message):
            read_one(folder)


def test_labels_come_back_from_an_export_with_their_names(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_nifti(folder / "sub-01_T1w.nii.gz", image(), AFFINES["oblique"])
    write_nifti(folder / "sub-01_T1w_seg.nii.gz", box(ids=(1, 2)), AFFINES["oblique"])
    (folder / "labels.json").write_text('{"seg": {"1": "grey matter", "2": "white matter"}}')
    convert([folder], tmp_path / "c", progress=False)
    (volume,) = volumes(tmp_path / "c")
    again = tmp_path / "again"
    for name, stem in (("image/t1w", "x_t1w"), ("seg/seg", "x_t1w_seg")):
        for file in export(volume[name], tmp_path / stem, "nifti"):
            again.mkdir(exist_ok=True)
            ending = "".join(file.suffixes)
            (
                again / f"{stem}{ending[ending.index('.nii') if '.nii' in ending else ending.index('.json') :]}"
            ).write_bytes(file.read_bytes())
    _, raw = read_one(again)
    assert raw.elements[1].labels == {1: "grey matter", 2: "white matter"}
    np.testing.assert_array_equal(values(raw.elements[1]), box(ids=(1, 2)).T)


def test_a_label_map_of_no_clear_image_is_a_failure(tmp_path):
    for name in ("x_t1", "x_t2", "x_seg", "other_mask"):
        write_nifti(tmp_path / f"{name}.nii.gz", box())
    problems = {item.path.name: item.problem for item in find_items([tmp_path])}
    assert [name for name, problem in problems.items() if problem] == ["other_mask.nii.gz", "x_seg.nii.gz"]
    assert "named like a label map" in problems["x_seg.nii.gz"]


def test_label_maps_with_other_values_are_refused(tmp_path):
    for name, array in (
        ("half", box(dtype=np.float32) * 0.5),
        ("minus", -box(dtype=np.int16)),
        ("nan", box(dtype=np.float32) * np.nan),
    ):
        folder = tmp_path / name
        folder.mkdir()
        write_nifti(folder / "a.nii.gz", image())
        write_nifti(folder / "a_seg.nii.gz", array)
        with pytest.raises(
            FormatError, match=r"a_seg\.nii\.gz: label map: expected integers from 0 to 65535, got others"
        ):
            read_one(folder)


def test_bad_files_are_refused(tmp_path):
    cut = write_nifti(tmp_path / "a.nii.gz", image((30, 30, 30)))
    cut.write_bytes(cut.read_bytes()[:50000])
    short = write_nifti(tmp_path / "short.nii", image())
    short.write_bytes(short.read_bytes()[:-1])
    many = write_nifti(tmp_path / "b.nii", np.zeros((3, 3, 3, 2, 2, 2), np.float32))
    nan = np.ones((3, 3, 3), np.float32)
    nan[1, 1, 1] = np.nan
    text = tmp_path / "d.nii.gz"
    text.write_bytes(gzip.compress(b"no image"))
    huge = write_nifti(tmp_path / "huge.nii.gz", np.zeros((3, 3, 3), np.uint8))
    head = bytearray(gzip.decompress(huge.read_bytes()))
    head[42:48] = np.array([32767] * 3, "<i2").tobytes()
    huge.write_bytes(gzip.compress(bytes(head)))
    cases = [
        (cut, FormatError, r"a\.nii\.gz: expected a readable NIfTI image.*truncated"),
        (short, FormatError, r"short\.nii: size: expected 840 bytes of data.*got a file of 1191 bytes.*truncated"),
        (many, FormatError, r"b\.nii: dimensions: expected \(x, y, z\[, t\[, set\]\]\), got \(3, 3, 3, 2, 2, 2\)"),
        (write_nifti(tmp_path / "c.nii", nan), NonFiniteError, r"c\.nii: values: expected finite, got 1 NaN"),
        (text, FormatError, r"d\.nii\.gz: expected a readable NIfTI image"),
        (huge, FormatError, r"huge\.nii\.gz: size: expected 35181150961663 bytes"),
        (
            write_nifti(tmp_path / "e.nii", np.ones((3, 3, 3), np.complex64)),
            FormatError,
            r"e\.nii: values: expected real",
        ),
    ]
    for file, error, message in cases:
        with pytest.raises(error, match=message):
            values(read_one(file)[1].elements[0])


@pytest.mark.realdata
def test_real_spines_with_their_cords(real_data, tmp_path):
    summary = convert([real_data / "spine"], tmp_path / "c", progress=False)
    assert not summary.failures
    found = {volume.id.split("acq-")[1]: volume for volume in volumes(tmp_path / "c")}
    for name, file, label in (("t1w_run-1", "t1/t1w", "t1/t1w_seg-manual"), ("t2_run-1", "t2/t2", "t2/t2_seg-manual")):
        original, drawn = (nibabel.load(real_data / "spine" / f"{stem}.nii.gz") for stem in (file, label))
        image = found[name][f"image/{name.split('_')[0]}"]
        np.testing.assert_array_equal(np.asarray(image[...]), original.get_fdata().T)
        np.testing.assert_array_equal(image.affine, original.affine)
        seg = found[name]["seg/seg-manual"]
        voxel = abs(np.linalg.det(np.asarray(seg.affine)[:3, :3]))
        expected = (drawn.get_fdata() > 0).sum() * abs(np.linalg.det(drawn.affine[:3, :3]))
        assert (np.asarray(seg[...]) > 0).sum() * voxel == pytest.approx(expected)
        assert nibabel.aff2axcodes(np.asarray(seg.affine)) == nibabel.aff2axcodes(drawn.affine)
