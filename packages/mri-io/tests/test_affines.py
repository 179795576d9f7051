"""Where voxels lie in the patient, for every reader and exporter, against nibabel or what else reads the format.

Each image is noise: a voxel at a wrong place has another value.
"""

import re
import warnings

import highdicom
import ismrmrd
import nibabel
import numpy as np
import pytest
import SimpleITK
import zarr
from nibabel.affines import apply_affine, voxel_sizes

from mri_io import create_cohort, open_cohort
from mri_io.export import export, export_cohort
from mri_io.formats import find_items, get_format
from mri_io.schema import Header
from mri_io.testing.dicom_files import write_enhanced, write_seg, write_series
from mri_io.testing.hdf5_files import skm_tea_scan, write_skm_tea
from mri_io.testing.image_files import (
    AFFINES,
    image,
    nibabel_data,
    read_one,
    values,
    write_metaimage,
    write_nrrd,
    write_parrec,
)
from mri_io.testing.image_sets import save, write_brats, write_isles, write_nnunet, write_prostate158
from mri_io.testing.raw_files import random_kspace

SHAPE = (7, 6, 5)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
each_affine = pytest.mark.parametrize("name", AFFINES)


def assert_same_points(array, affine, theirs, their_affine):
    """Every voxel of an array (x, y, z) lies where another has a voxel of the same value."""
    assert sorted(array.shape) == sorted(theirs.shape)
    indices = np.argwhere(np.ones(array.shape, bool))
    found = apply_affine(np.linalg.inv(their_affine), apply_affine(affine, indices))
    np.testing.assert_allclose(found, np.rint(found), atol=2e-3)
    there = np.rint(found).astype(int)
    assert there.min() >= 0
    assert (there.max(axis=0) < theirs.shape).all()
    np.testing.assert_allclose(array[tuple(indices.T)], theirs[tuple(there.T)], rtol=1e-6)


def assert_as_in(element, file):
    """An element has the values and the affine with which nibabel reads a file."""
    reference = nibabel.load(file)
    np.testing.assert_allclose(values(element).T, reference.get_fdata(), rtol=1e-6)
    np.testing.assert_array_equal(element.affine, reference.affine)
    assert nibabel.aff2axcodes(element.affine) == nibabel.aff2axcodes(reference.affine)


def itk_image(read):
    """Return the array (x, y, z) and the affine to RAS+ of an image of ITK, by the places of its voxels."""
    origin, *ends = (
        np.array(read.TransformIndexToPhysicalPoint(index)) for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    )
    affine = np.eye(4)
    affine[:3] = LPS[:3, :3] @ np.column_stack([*(end - origin for end in ends), origin])
    return SimpleITK.GetArrayFromImage(read).T, affine


# Readers


@each_affine
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        (nibabel.Nifti1Image, "a.nii"),
        (nibabel.Nifti2Image, "a.nii.gz"),
        (nibabel.Nifti1Pair, "a.hdr"),
        (nibabel.Spm99AnalyzeImage, "a.hdr"),  # with the matrix in a.mat; the format itself states none
    ],
    ids=["NIfTI-1", "NIfTI-2", "pair", "Analyze of SPM"],
)
def test_files_that_nibabel_reads(tmp_path, name, kind, file):
    kind(image(SHAPE), AFFINES[name]).to_filename(tmp_path / file)
    (element,) = read_one(tmp_path / file)[1].elements
    assert_as_in(element, tmp_path / file)
    np.testing.assert_allclose(element.affine, AFFINES[name], atol=1e-5)


def pairs(root):
    for folder in ("images", "labels"):
        save(root / folder / "case1.nii.gz", image(SHAPE, np.uint8))
    return root


SETS = {
    "brats": write_brats,
    "isles": write_isles,
    "prostate158": write_prostate158,
    "nnunet": write_nnunet,
    "nifti-pairs": pairs,
}


@each_affine
@pytest.mark.parametrize("kind", SETS)
def test_data_sets(tmp_path, name, kind):
    root = SETS[kind](tmp_path)
    for file in root.rglob("*.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(file).dataobj), AFFINES[name]), file)
    item = find_items([root])[0]
    assert item.format == kind
    elements = {element.path: element for element in get_format(kind).read(item).elements}
    assert {path.partition("/")[0] for path in elements} == {"image", "seg"}
    for part in item.options["parts"]:
        assert_as_in(elements[part.element], part.path)


@each_affine
def test_magnitude_and_phase_of_ahead(tmp_path, name):
    for echo in range(1, 5):
        for number, kind in enumerate(("mag", "phase")):
            array = image(SHAPE, seed=2 * echo + number)
            if kind == "phase":
                array = 2 * np.pi * (array - array.min()) / np.ptp(array) - np.pi
            save(tmp_path / f"sub-1_acq-mp2rageme_inv-2_echo-{echo}_part-{kind}.nii.gz", array, AFFINES[name])
    (element,) = read_one(tmp_path, "ahead")[1].elements
    reference = nibabel.load(tmp_path / "sub-1_acq-mp2rageme_inv-2_echo-1_part-mag.nii.gz")
    np.testing.assert_array_equal(element.affine, reference.affine)


@each_affine
def test_tissues_of_skm_tea(tmp_path, name):
    scan = skm_tea_scan((6, 24, 16), (18, 8))
    root = write_skm_tea(tmp_path, {"MTR_005": scan}, affine=AFFINES[name])
    (item,) = find_items([root])
    elements = {element.path: element for element in get_format("skm-tea").read(item).elements}
    reference = nibabel.load(root / "segmentation_masks" / "raw-data-track" / "MTR_005.nii.gz")
    tissues = elements["seg/tissues"]
    assert_same_points(values(tissues).T, tissues.affine, np.asarray(reference.dataobj), reference.affine)
    np.testing.assert_array_equal(elements["recon/target"].affine, tissues.affine)


@pytest.mark.parametrize("angles", ["0 0 0", "12.5 -3 40", "-170 20 88"])
@pytest.mark.parametrize("plane", [1, 2, 3])
def test_philips(tmp_path, angles, plane):
    header = nibabel_data("phantom_EPI_asc_CLEAR_2_1.PAR")
    text = header.read_text(encoding="latin-1")
    (old,) = re.findall(r"^\.\s+Angulation midslice.*$", text, re.MULTILINE)
    path = write_parrec(tmp_path, header, replacements={old: f"{old.partition(':')[0]}:   {angles}"})
    lines = path.read_text(encoding="latin-1").splitlines()
    table = [i for i, line in enumerate(lines) if line.strip() and line.strip()[0].isdigit()]
    for i in table:
        words = lines[i].split()
        words[25] = str(plane)  # slice orientation: transverse, sagittal, coronal
        lines[i] = "  " + "  ".join(words)
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")
    (element,) = read_one(path)[1].elements
    with path.open(encoding="latin-1") as file:
        reference = nibabel.parrec.PARRECHeader.from_fileobj(file, strict_sort=True).get_affine()
    np.testing.assert_array_equal(element.affine, reference)
    assert nibabel.aff2axcodes(element.affine) == nibabel.aff2axcodes(reference)


@each_affine
@pytest.mark.parametrize("file", ["a.nrrd", "a.mha", "a.mhd"])
def test_files_that_itk_reads(tmp_path, name, file):
    array, write = image(SHAPE), write_nrrd if file == "a.nrrd" else write_metaimage
    path = write(tmp_path / file, array, AFFINES[name])
    (element,) = read_one(path)[1].elements
    theirs, affine = itk_image(SimpleITK.ReadImage(str(path)))
    np.testing.assert_array_equal(values(element).T, theirs)
    np.testing.assert_allclose(element.affine, affine, atol=1e-5)
    assert nibabel.aff2axcodes(element.affine) == nibabel.aff2axcodes(AFFINES[name])


def itk_series(folder):
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return itk_image(SimpleITK.ReadImage(files))


@each_affine
def test_dicom_series(tmp_path, name):
    array = image(SHAPE, np.int16)
    files = write_series(tmp_path, array.T, AFFINES[name])
    (element,) = read_one(tmp_path)[1].elements
    assert_same_points(values(element).T, element.affine, *itk_series(tmp_path))
    planes = [values(element)[k] for k in range(SHAPE[2])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its being experimental
        from nibabel.nicom.dicomwrappers import wrapper_from_file
    for file in files:  # nibabel reads one file at a time; its arrays are (row, column)
        one = wrapper_from_file(file)
        (k,) = (k for k, plane in enumerate(planes) if np.array_equal(plane, np.squeeze(one.get_data())))
        place = LPS @ one.affine @ [0, 0, 0, 1]
        np.testing.assert_allclose(element.affine @ [0, 0, k, 1], place, atol=1e-4)
        theirs = LPS @ one.affine[:, [1, 0]]
        np.testing.assert_allclose(element.affine[:, :2], theirs, atol=1e-5)


@each_affine
def test_enhanced_dicom_and_segmentations(tmp_path, name):
    array = image(SHAPE, np.int16)
    path = write_enhanced(tmp_path / "a" / "a.dcm", array.T[None, None], AFFINES[name])
    (element,) = read_one(path)[1].elements
    theirs = highdicom.imread(path).get_volume()
    affine = LPS @ theirs.affine[:, [2, 1, 0, 3]]
    assert_same_points(values(element).T, element.affine, theirs.array.T, affine)
    files = write_series(tmp_path / "b", array.T, AFFINES[name])
    labels = (array.T > 50).astype(np.uint8)
    write_seg(tmp_path / "b" / "seg.dcm", labels, files, {1: "tissue"})
    (item,) = find_items([tmp_path / "b"])
    made, seg = get_format("dicom").read(item).elements
    np.testing.assert_array_equal(values(seg), values(made) > 50)
    np.testing.assert_array_equal(seg.affine, made.affine)


# Exporters


@pytest.fixture
def stored(tmp_path, name, made):
    """A cohort of one volume with an image and a label map of it."""
    cohort = create_cohort(tmp_path / "cohort")
    array = image(SHAPE, np.int16)
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01") as volume:
        volume.write("image/t1", array.T, provenance=made, affine=AFFINES[name])
        volume.write("seg/a", (array.T // 25).astype(np.uint8), provenance=made, affine=AFFINES[name], labels=LABELS)
    return open_cohort(cohort.path)


LABELS = {number: f"part {number}" for number in (1, 2, 3)}


def assert_exported(file, element):
    """nibabel finds the values of an element in a file, and its affine."""
    reference = nibabel.load(file)
    np.testing.assert_array_equal(np.asarray(reference.dataobj).T, element.numpy())
    np.testing.assert_allclose(reference.affine, element.affine, atol=1e-5)
    assert nibabel.aff2axcodes(reference.affine) == nibabel.aff2axcodes(element.affine)


@each_affine
def test_exported_nifti(tmp_path, stored):
    for element in stored.volumes()[0].elements().values():
        assert_exported(export(element, tmp_path / "out", "nifti")[0], element)


@each_affine
def test_nnunet_comes_back(tmp_path, stored):
    (folder,) = export_cohort(stored, "image/t1", tmp_path / "raw", "nnunet", labels=["seg/a"], progress=False).files
    (image_file,), (label_file,) = ([*(folder / name).iterdir()] for name in ("imagesTr", "labelsTr"))
    volume = stored.volumes()[0]
    assert_exported(image_file, volume["image/t1"])
    assert_exported(label_file, volume["seg/a"])
    item, raw = read_one(folder)
    assert item.format == "nnunet"
    for mine, path in zip(raw.elements, ("image/t1", "seg/a"), strict=True):
        np.testing.assert_array_equal(values(mine), volume[path].numpy())
        np.testing.assert_allclose(mine.affine, volume[path].affine, atol=1e-5)
    assert raw.elements[1].labels == LABELS


@each_affine
def test_exported_dicom_and_segmentation(tmp_path, stored):
    volume = stored.volumes()[0]
    element, seg = volume["image/t1"], volume["seg/a"]
    (folder,) = export(element, tmp_path / "out", "dicom")
    assert_same_points(element.numpy().T, element.affine, *itk_series(folder))
    (folder,) = export(seg, tmp_path / "seg", "dicom-seg")
    theirs = highdicom.seg.segread(folder / "segmentation.dcm").get_volume(combine_segments=True)
    affine = LPS @ theirs.affine[:, [2, 1, 0, 3]]
    assert_same_points(seg.numpy().T, seg.affine, theirs.array.T, affine)


@each_affine
def test_exported_ome_zarr(tmp_path, stored):
    element = stored.volumes()[0]["image/t1"]
    (folder,) = export(element, tmp_path / "out", "ome-zarr")
    file = export(element, tmp_path / "out", "nifti")[0]
    group, reference = zarr.open_group(folder, mode="r"), nibabel.load(file)
    affine = np.array(group.attrs["mri"]["affine"])
    assert_same_points(group["0"][...].T, affine, np.asarray(reference.dataobj), reference.affine)
    first = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    np.testing.assert_allclose(first[0]["scale"][::-1], voxel_sizes(reference.affine), rtol=1e-5)


@each_affine
@pytest.mark.parametrize("dims", [("slice", "coil", "ky", "kx"), ("kz", "coil", "ky", "kx")], ids=["slices", "volume"])
def test_exported_ismrmrd(tmp_path, name, made, dims):
    nx, ny, nz = SHAPE
    affine, matrix = AFFINES[name], (nx, ny, nz if dims[0] == "kz" else 1)
    field = tuple(float(n * mm / 1000) for n, mm in zip(matrix, voxel_sizes(affine), strict=True))
    header = Header(encoded_matrix=matrix, recon_matrix=matrix, encoded_fov_m=field, recon_fov_m=field)
    cohort = create_cohort(tmp_path / "cohort")
    attributes = {"recon_affine": affine.tolist()}
    made_volume = cohort.create_volume("sub-01_acq-x_run-1", subject_id="sub-01", header=header, attributes=attributes)
    with made_volume as volume:
        volume.write("kspace", random_kspace((nz, 2, ny, nx)), provenance=made, dims=dims)
    (file,) = export(cohort["sub-01_acq-x_run-1"]["kspace"], tmp_path / "out", "ismrmrd")
    lps = LPS @ affine
    with ismrmrd.Dataset(str(file), mode="r") as dataset:
        heads = [dataset.read_acquisition(n).getHead() for n in range(dataset.number_of_acquisitions())]
    directions = lps[:3, :3] / voxel_sizes(affine)
    for head in heads:
        place = nz // 2 if dims[0] == "kz" else head.idx.slice
        centre = apply_affine(lps, [nx // 2, ny // 2, place])  # where the phases of k-space are zero
        np.testing.assert_allclose(head.position[:], centre, atol=1e-3)
        np.testing.assert_allclose(head.read_dir[:], directions[:, 0], atol=1e-5)
        np.testing.assert_allclose(head.phase_dir[:], directions[:, 1], atol=1e-5)
        sign = np.sign(np.dot(head.slice_dir[:], directions[:, 2]))  # slices may be numbered against it
        np.testing.assert_allclose(sign * np.array(head.slice_dir[:]), directions[:, 2], atol=1e-5)
    assert {head.idx.slice for head in heads} == (set(range(nz)) if dims[0] == "slice" else {0})
