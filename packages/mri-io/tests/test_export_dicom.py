"""DICOM out: read back by pydicom, highdicom, SimpleITK and our own reader; geometry, values, pseudonyms."""

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from mri_io.convert import convert
from mri_io.errors import ConfigError
from mri_io.export import export
from mri_io.export.dicom_seg import segment_code
from mri_io.formats import find_items, get_format
from mri_io.schema import Header, Provenance
from mri_io.store import create_cohort, open_cohort
from mri_io.testing.affines import ORIENTATIONS, affine
from mri_io.testing.dicom_files import PLANTED, uid, write_enhanced, write_series

SHAPE = (5, 6, 7)
TO_LPS = np.diag([-1.0, -1, 1, 1])

AFFINES = {
    **ORIENTATIONS,
    "axial": affine(np.diag([1.5, 1.2, 4]), (-90, -126, -72)),
    "left-handed": affine(np.diag([-1.5, 1.2, 4]), (90, -126, -72)),
    "coronal": affine(np.array([[-1.1, 0, 0], [0, 0, 3], [0, -1.3, 0]]), (100, 50, 90)),
}
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1:3, 2:4, 1:6], LABELS[2:4, 4, 3:] = 1, 4


def volume_with(
    tmp_path, *, weights=None, matrix=AFFINES["axial"], method="test", labels=None, header=None, **elements
):
    cohort = create_cohort(tmp_path / "cohort")
    made = Provenance.of("mri-io", method, weights_sha256=weights)
    header = header or Header(te_s=(0.08,), tr_s=(3.0,), field_T=3.0, vendor="SIEMENS")
    with cohort.create_volume("sub-01_acq-t2_run-1", subject_id="sub-01", header=header) as volume:
        for name, (array, dims) in elements.items():
            path = name.replace("_", "/", 1)
            more = {"attributes": {"unit": "ms"}} if path.startswith("qmap") else {}
            if path.startswith("seg"):
                more["labels"] = labels or {1: "gland", 4: {"name": "tumour", "code": "SCT 108369006"}}
            volume.write(path, array, provenance=made, dims=dims, affine=matrix, **more)
    return cohort["sub-01_acq-t2_run-1"]


SLICES = ("slice", "y", "x")


def ours(folder, *, index=0):
    items = find_items([folder])
    raw = get_format("dicom").read(items[index])
    return raw, {
        e.path: np.concatenate([b.reshape(-1, *e.shape[-2:]) for b in e.blocks()]).reshape(e.shape)
        for e in raw.elements
    }


def in_order(array, matrix):
    if np.linalg.det(matrix[:3, :3]) > 0:
        return array, matrix
    flip = np.diag([1.0, 1, -1, 1])
    flip[2, 3] = array.shape[-3] - 1
    return np.flip(array, -3), matrix @ flip


def floats(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(3, 50, shape).astype(np.float32)


@pytest.mark.parametrize("name", AFFINES)
def test_images_lie_where_they_were(tmp_path, name):
    array, matrix = floats(), AFFINES[name]
    volume = volume_with(tmp_path, matrix=matrix, recon_sense=(array, SLICES))
    (folder,) = export(volume["recon/sense"], tmp_path / "out", "dicom")
    files = sorted(folder.iterdir())
    assert len(files) == 5
    expected, ordered = in_order(array, matrix)
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        assert dataset.InstanceNumber == number + 1
        error = float(dataset.DerivationDescription.partition("at most ")[2])
        assert error < np.ptp(array) / 65535
        values = pydicom.pixels.apply_rescale(dataset.pixel_array, dataset)
        np.testing.assert_allclose(values, expected[number], rtol=0, atol=error * 1.001)
        to_patient = highdicom.spatial.PixelToReferenceTransformer.for_image(dataset)
        pixels = np.array([[0, 0], [6, 5], [2, 3]])
        theirs = to_patient(pixels)
        mine = (TO_LPS @ ordered @ np.column_stack([pixels, [number] * 3, [1] * 3]).T)[:3].T
        np.testing.assert_allclose(theirs, mine, atol=1e-4)
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(image), expected, atol=error * 1.01)
    raw, arrays = ours(folder)
    np.testing.assert_allclose(raw.elements[0].affine, ordered, atol=1e-5)
    np.testing.assert_allclose(arrays[raw.elements[0].path], expected, atol=error * 1.01)


def test_integers_are_exact(tmp_path):
    array = np.random.default_rng(0).integers(-(2**15), 2**15, SHAPE).astype(np.int16)
    volume = volume_with(tmp_path, image_t2=(array, SLICES))
    (folder,) = export(volume["image/t2"], tmp_path / "out", "dicom")
    found = np.stack([pydicom.dcmread(file).pixel_array for file in sorted(folder.iterdir())])
    np.testing.assert_array_equal(found, array)
    assert "values are exact" in pydicom.dcmread(next(folder.iterdir())).DerivationDescription
    header = ours(folder)[0].header
    assert (header.te_s, header.tr_s, header.field_T, header.vendor) == ((0.08,), (3.0,), 3.0, "SIEMENS")


@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1, 1e20])
@pytest.mark.parametrize("offset", [0, -1000])
def test_stated_errors_hold_at_every_scale(tmp_path, scale, offset):
    array = ((floats() + offset) * scale).astype(np.float32)
    volume = volume_with(tmp_path, recon_a=(array, SLICES))
    (folder,) = export(volume["recon/a"], tmp_path / "out", "dicom")
    for number, file in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(file)
        error = float(dataset.DerivationDescription.partition("at most ")[2])
        values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.abs(values - array[number]).max() <= error * 1.01
        assert error < 2e-5 * np.ptp(array)


def test_maps_without_values_somewhere(tmp_path):
    array = np.abs(floats())
    array[1, 2, 3], array[0, 0, 0] = np.nan, np.inf
    volume = volume_with(tmp_path, qmap_t2=(array, SLICES))
    (folder,) = export(volume["qmap/t2"], tmp_path / "out", "dicom")
    datasets = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    stored = np.stack([dataset.pixel_array for dataset in datasets])
    np.testing.assert_array_equal(stored == datasets[0].PixelPaddingValue, ~np.isfinite(array))
    assert "in ms" in datasets[0].DerivationDescription


def read_back(folder):
    """Return stored values and, by pydicom, the values they stand for."""
    datasets = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    stored = np.stack([dataset.pixel_array for dataset in datasets])
    values = np.stack([pydicom.pixels.apply_rescale(d.pixel_array, d) for d in datasets])
    return stored, values, datasets[0]


@pytest.mark.parametrize("constant", [0.05, 7.25, 0.0, -3.0, 1e-20, -1e20, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_constant_images(tmp_path, constant, missing):
    array = np.full(SHAPE, constant, np.float32)
    if missing:
        array[1, 2:4], array[0, 0, 0] = np.nan, np.inf
    volume = volume_with(tmp_path, qmap_t2=(array, SLICES))
    (folder,) = export(volume["qmap/t2"], tmp_path / "out", "dicom")
    stored, values, first = read_back(folder)
    known = np.isfinite(array)
    np.testing.assert_array_equal(values[known].astype(np.float32), np.float32(constant))
    assert first.get("PixelPaddingValue") == (0 if missing else None)
    if missing:
        np.testing.assert_array_equal(stored == 0, ~known)


def test_maps_without_any_value(tmp_path):
    volume = volume_with(tmp_path, qmap_t2=(np.full(SHAPE, np.nan, np.float32), SLICES))
    (folder,) = export(volume["qmap/t2"], tmp_path / "out", "dicom")
    stored, _, first = read_back(folder)
    assert first.PixelPaddingValue == 0
    assert not stored.any()


def test_parts_of_complex_images(tmp_path):
    array = (floats() + 1j * floats(seed=1)).astype(np.complex64)
    volume = volume_with(tmp_path, recon_a=(array, SLICES))
    found = {}
    for part, path in (("magnitude", "image/dicom"), ("phase", "image/dicom-phase"), ("imag", "image/dicom-imag")):
        (folder,) = export(volume["recon/a"], tmp_path / "out", "dicom", part=part)
        found[part] = ours(folder)[1][path]
    np.testing.assert_allclose(found["magnitude"], np.abs(array), atol=0.01)
    np.testing.assert_allclose(found["phase"], np.angle(array), atol=1e-4)
    np.testing.assert_allclose(found["imag"], array.imag, atol=0.01)
    assert len(find_items([tmp_path / "out"])) == 3


def test_series_of_frames_and_echoes(tmp_path):
    array = floats((2, 3, *SHAPE))
    header = Header(te_s=(0.01, 0.02, 0.03))
    matrix = AFFINES["left-handed"]
    volume = volume_with(tmp_path, matrix=matrix, header=header, recon_a=(array, ("frame", "echo", *SLICES)))
    (folder,) = export(volume["recon/a"], tmp_path / "out", "dicom")
    raw, arrays = ours(folder)
    expected, ordered = in_order(array, matrix)
    assert raw.elements[0].dims == ("frame", "echo", *SLICES)
    np.testing.assert_allclose(arrays["image/dicom"], expected, atol=0.01)
    np.testing.assert_allclose(raw.elements[0].affine, ordered, atol=1e-5)
    assert raw.header.te_s == pytest.approx((0.01, 0.02, 0.03))


@pytest.mark.parametrize(
    ("path", "times", "angles", "expected"),
    [
        ("recon_a", (0.01,), (np.pi / 6,), ("10", "2000", "30", "3")),
        ("recon_a", (0.01, 0.02), (0.1, 0.2), (None, None, None, "3")),  # which of them is that of the image
        ("recon_a", (0.01, 0.02), (0.5, 0.5), (None, None, "28.647890", "3")),
        ("qmap_t2", (0.01,), (np.pi / 6,), (None, None, None, "3")),  # of several images
    ],
)
def test_parameters_stand_only_where_they_are_known(tmp_path, path, times, angles, expected):
    tr = (2.0,) if len(times) == 1 else (2.0, 3.0)
    header = Header(te_s=times, tr_s=tr, flip_angle_rad=angles, field_T=3.0)
    volume = volume_with(tmp_path, header=header, **{path: (np.abs(floats()), SLICES)})
    (folder,) = export(volume[path.replace("_", "/")], tmp_path / "out", "dicom")
    keywords = ("EchoTime", "RepetitionTime", "FlipAngle", "MagneticFieldStrength")
    for file in folder.iterdir():
        found = pydicom.dcmread(file)
        values = tuple(found.get(keyword) for keyword in keywords)
        assert values == tuple(None if value is None else pytest.approx(float(value)) for value in expected)


def test_sets_are_series_of_their_own(tmp_path):
    array = floats((2, *SHAPE))
    volume = volume_with(tmp_path, recon_a=(array, ("set", *SLICES)))
    (folder,) = export(volume["recon/a"], tmp_path / "out", "dicom")
    for index in range(2):
        np.testing.assert_allclose(next(iter(ours(folder, index=index)[1].values())), array[index], atol=0.01)


def test_uids_follow_from_the_commit(tmp_path):
    volume = volume_with(tmp_path, recon_a=(floats(), SLICES), recon_b=(floats(), SLICES))
    (first,) = export(volume["recon/a"], tmp_path / "one", "dicom")
    (again,) = export(volume["recon/a"], tmp_path / "two", "dicom")
    (other,) = export(volume["recon/b"], tmp_path / "one", "dicom")
    assert [file.read_bytes() for file in sorted(first.iterdir())] == [f.read_bytes() for f in sorted(again.iterdir())]
    a, b = (pydicom.dcmread(next(folder.iterdir())) for folder in (first, other))
    assert (a.StudyInstanceUID, a.FrameOfReferenceUID) == (b.StudyInstanceUID, b.FrameOfReferenceUID)
    assert a.SeriesInstanceUID != b.SeriesInstanceUID
    assert len({pydicom.dcmread(file).SOPInstanceUID for file in (*first.iterdir(), *other.iterdir())}) == 10
    assert (a.PatientID, str(a.PatientName), a.PatientBirthDate, a.StudyDate) == ("sub-01", "sub-01", "", "")


@pytest.mark.parametrize("name", AFFINES)
def test_segmentations_with_the_image_beside_them(tmp_path, name):
    matrix = AFFINES[name]
    image = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    volume = volume_with(tmp_path, matrix=matrix, image_t2=(image, SLICES), seg_prostate=(LABELS, SLICES))
    (folder,) = export(volume["seg/prostate"], tmp_path / "out", "dicom-seg")
    segmentation = highdicom.seg.segread(folder / "segmentation.dcm")
    assert segmentation.segmentation_type.value == "BINARY"
    assert segmentation.ContentLabel == "PROSTATE"
    grid = highdicom.VolumeGeometry((TO_LPS @ matrix)[:, [2, 1, 0, 3]], SHAPE, "PATIENT")
    labels = segmentation.get_volume(combine_segments=True).match_geometry(grid).array
    np.testing.assert_array_equal(labels, np.where(LABELS == 4, 2, LABELS))
    written = {pydicom.dcmread(file).SOPInstanceUID for file in (folder / "image").iterdir()}
    referred = {instance for _, _, instance in segmentation.get_source_image_uids()}
    assert referred == written
    assert segmentation.FrameOfReferenceUID == pydicom.dcmread(next((folder / "image").iterdir())).FrameOfReferenceUID
    first, second = (segmentation.get_segment_description(number) for number in (1, 2))
    assert (first.segment_label, first.segmented_property_type.value) == ("gland", "85756007")
    assert (second.segment_label, second.segmented_property_type.value) == ("tumour", "108369006")
    assert second.segmented_property_category.value == "49755003"
    # Our own reader joins both, and keeps the pseudonym.
    raw, arrays = ours(folder)
    assert get_format("dicom").identify(find_items([folder])[0]).subject == "sub-01"
    np.testing.assert_array_equal(arrays["seg/prostate"], in_order(np.where(LABELS == 4, 2, LABELS), matrix)[0])
    np.testing.assert_array_equal(arrays["image/dicom"], in_order(image, matrix)[0])
    assert raw.elements[1].labels[2] == {"name": "tumour", "code": "SCT 108369006"}
    # The image is the one that the exporter of images writes.
    (alone,) = export(volume["image/t2"], tmp_path / "out", "dicom")
    assert {file.read_bytes() for file in alone.iterdir()} == {f.read_bytes() for f in (folder / "image").iterdir()}


def test_an_image_that_dicom_cannot_hold_is_passed_over(tmp_path):
    echoes = (floats((2, *SHAPE)), ("echo", *SLICES))  # of which the header has no times
    volume = volume_with(tmp_path, image_a=echoes, recon_b=(floats(), SLICES), seg_a=(LABELS, SLICES))
    (folder,) = export(volume["seg/a"], tmp_path / "out", "dicom-seg")
    written = {pydicom.dcmread(file).SOPInstanceUID for file in (folder / "image").iterdir()}
    segmentation = highdicom.seg.segread(folder / "segmentation.dcm")
    assert {instance for _, _, instance in segmentation.get_source_image_uids()} == written
    (alone,) = export(volume["recon/b"], tmp_path / "out", "dicom")
    assert {pydicom.dcmread(file).SOPInstanceUID for file in alone.iterdir()} == written
    only = volume_with(tmp_path / "2", image_a=echoes, seg_a=(LABELS, SLICES))
    with pytest.raises(
        ConfigError, match=r"image on the grid of the labels.*got .*echo times: expected 2.*--source DIR"
    ):
        export(only["seg/a"], tmp_path / "out", "dicom-seg")


@pytest.mark.parametrize("labels", [{}, {1: "gland"}])
def test_label_maps_with_nothing_in_them(tmp_path, made, labels):
    volume = volume_with(tmp_path, image_a=(floats(), SLICES))
    nothing = np.zeros(SHAPE, np.uint8)
    volume.write("seg/a", nothing, provenance=made, dims=SLICES, affine=AFFINES["axial"], labels=labels)
    if labels:
        (folder,) = export(volume["seg/a"], tmp_path / "out", "dicom-seg")
        segmentation = highdicom.seg.segread(folder / "segmentation.dcm")
        assert not segmentation.get_volume(combine_segments=True).array.any()
        return
    with pytest.raises(ConfigError, match="labels: expected at least one, for DICOM, got none"):
        export(volume["seg/a"], tmp_path / "out", "dicom-seg")
    assert not (tmp_path / "out").exists()


def test_the_algorithm_is_that_of_the_provenance(tmp_path):
    image = np.ones(SHAPE, np.float32)
    volume = volume_with(tmp_path, method="segment", weights="0" * 64, image_t2=(image, SLICES), seg_a=(LABELS, SLICES))
    (folder,) = export(volume["seg/a"], tmp_path / "out", "dicom-seg")
    described = highdicom.seg.segread(folder / "segmentation.dcm").get_segment_description(1)
    assert described.algorithm_type.value == "AUTOMATIC"
    assert described.algorithm_identification.name == "segment"
    assert described.algorithm_identification.family.meaning == "Artificial Intelligence"


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_source_series_are_referred_to(tmp_path, kind):
    source, matrix = tmp_path / "source", AFFINES["oblique and flipped"]
    array = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    if kind == "classic":
        files = write_series(source, array, matrix, order=[3, 1, 0, 4, 2])
    else:
        files = [write_enhanced(source / "a.dcm", array[None, None], matrix, order=[3, 1, 0, 4, 2])]
    write_series(source, array, matrix, series="another", prefix="other")
    cohort = tmp_path / "cohort"
    assert convert(files, cohort, progress=False).ok
    volume = open_cohort(cohort).volumes()[0]
    image, made = next(iter(volume.elements().values())), Provenance.of("mri-io", "test")
    labels = np.flip(LABELS, 0)
    volume.write("seg/a", labels, provenance=made, dims=SLICES, affine=image.affine, labels={1: "a", 4: "b"})
    recon = volume.write("recon/a", floats(), provenance=made, dims=SLICES, affine=image.affine)
    (images,) = export(recon, tmp_path / "out", "dicom", source=source)
    (folder,) = export(volume["seg/a"], tmp_path / "out", "dicom-seg", source=source)
    assert [path.name for path in folder.iterdir()] == ["segmentation.dcm"]
    segmentation = highdicom.seg.segread(folder / "segmentation.dcm")
    originals = [pydicom.dcmread(file) for file in files]
    for dataset in (segmentation, pydicom.dcmread(next(images.iterdir()))):
        assert dataset.StudyInstanceUID == uid("study")
        assert dataset.FrameOfReferenceUID == uid("frame of reference")
    named = {i for _, _, i in segmentation.get_source_image_uids()}
    assert named == {dataset.SOPInstanceUID for dataset in originals}
    # Every frame names the image at its place.
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        derived = frame.DerivationImageSequence[0].SourceImageSequence[0]
        if kind == "classic":
            (source_image,) = (d for d in originals if d.SOPInstanceUID == derived.ReferencedSOPInstanceUID)
            position = source_image.ImagePositionPatient
        else:
            group = originals[0].PerFrameFunctionalGroupsSequence[int(derived.ReferencedFrameNumber) - 1]
            position = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, np.array(position, float), atol=1e-3)
    for path in (*folder.iterdir(), *images.iterdir()):
        text = path.read_bytes().decode("latin1").lower()
        for planted in set(PLANTED) - {"2.25."}:
            assert planted not in text
    # Beside its source, it is read as labels of it.
    (source / "segmentation.dcm").write_bytes((folder / "segmentation.dcm").read_bytes())
    found = next(i for i in find_items([source]) if i.options.get("segmentations"))
    element = get_format("dicom").read(found).elements[1]
    np.testing.assert_array_equal(next(element.blocks()), np.where(labels == 4, 2, labels))


def test_a_source_that_is_not_there_is_named(tmp_path):
    files = write_series(tmp_path / "source", np.ones(SHAPE, np.int16), AFFINES["axial"])
    assert convert([tmp_path / "source"], tmp_path / "cohort", progress=False).ok
    volume = open_cohort(tmp_path / "cohort").volumes()[0]
    files[2].unlink()
    with pytest.raises(ConfigError, match="expected the 5 files of its series, got 4 of them in"):
        export(volume["image/t2"], tmp_path / "out", "dicom", source=tmp_path / "source")
    with pytest.raises(ConfigError, match="expected the folder of the DICOM files"):
        export(volume["image/t2"], tmp_path / "out", "dicom", source=tmp_path / "nothing")


def test_what_dicom_cannot_hold_is_refused(tmp_path):
    shear = AFFINES["axial"].copy()
    shear[0, 1] = 0.3
    volume = volume_with(tmp_path, matrix=shear, recon_a=(floats(), SLICES), seg_a=(LABELS, SLICES))
    for element, format in (("recon/a", "dicom"), ("seg/a", "dicom-seg")):
        with pytest.raises(ConfigError, match="expected orthogonal axes, for DICOM"):
            export(volume[element], tmp_path / "out", format)
    with pytest.raises(ConfigError, match="Choose --format dicom-seg"):
        export(volume["seg/a"], tmp_path / "out", "dicom")
    with pytest.raises(ConfigError, match="Choose --format dicom for images"):
        export(volume["recon/a"], tmp_path / "out", "dicom-seg")
    unknown = volume_with(tmp_path / "2", matrix=None, recon_a=(floats(), SLICES))
    with pytest.raises(ConfigError, match="affine: expected one, for DICOM, got none"):
        export(unknown["recon/a"], tmp_path / "out", "dicom")
    echoes = volume_with(tmp_path / "3", recon_a=(floats((2, *SHAPE)), ("echo", *SLICES)))
    with pytest.raises(ConfigError, match="echo times: expected 2 in the header, got 1"):
        export(echoes["recon/a"], tmp_path / "out", "dicom")
    alone = volume_with(tmp_path / "4", seg_a=(LABELS, SLICES))
    with pytest.raises(ConfigError, match="expected an image on the grid of the labels"):
        export(alone["seg/a"], tmp_path / "out", "dicom-seg")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("label", "category", "kind"),
    [
        ({"name": "liver", "code": "SCT 10200004"}, "85756007", ("10200004", "SCT", "liver")),
        ({"name": "liver", "code": 10200004}, "85756007", ("10200004", "SCT", "liver")),
        ({"name": "Liver tumour"}, "49755003", ("49755003", "SCT", "Morphologically Abnormal Structure")),
        ({"name": "x", "code": "FMA:7197"}, "85756007", ("85756007", "SCT", "Tissue")),
    ],
)
def test_codes_of_segments(label, category, kind):
    found = segment_code(label)
    assert found[0][0] == category
    assert found[1] == kind
