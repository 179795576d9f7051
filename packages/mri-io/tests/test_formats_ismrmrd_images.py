"""ISMRMRD: where slices lie, by point sources at known places and by nibabel; images in the files."""

import ismrmrd
import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.testing.ismrmrd_files import acquisitions_of, append_images, scan_header, write_scan
from mri_io.testing.raw_files import random_kspace

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
OBLIQUE = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
DIRECTIONS = {
    "axial": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, 1.0]),
    "sagittal": np.array([[0, 1.0, 0], [0, 0, -1.0], [1.0, 0, 0]]),
    "oblique": OBLIQUE,
    "oblique, flipped": OBLIQUE * np.array([[1], [-1], [-1]]),
}
FIELD_MM = (240.0, 180.0)
MATRIX = (24, 18)
SPACING_MM = 7.0


def whole(element):
    """Put the blocks of an element together."""
    return np.concatenate([block.ravel() for block in element.blocks()]).reshape(element.shape)


def read(path):
    (item,) = find_items([path])
    assert item.format == "ismrmrd"
    raw = get_format("ismrmrd").read(item)
    return raw, {e.path: (whole(e), e) for e in raw.elements}


def waves(offset_mm, field_mm, count):
    """The signal of a point: k-space samples exp(-2 pi i k x) at k = (i - n // 2) / field."""
    return np.exp(-2j * np.pi * (np.arange(count) - count // 2) * offset_mm / field_mm)


def image_of(kspace, axes):
    """The image of centred k-space."""
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes=axes), axes=axes), axes=axes)


def placed(name, position):
    read_dir, phase_dir, slice_dir = DIRECTIONS[name]
    vectors = {"read_dir": read_dir, "phase_dir": phase_dir, "slice_dir": slice_dir, "position": position}
    return {key: tuple(map(float, value)) for key, value in vectors.items()}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_points_of_slices_lie_where_the_affine_says(tmp_path, name):
    axes = DIRECTIONS[name]
    centre = np.array([12.0, -30.0, 8.0])
    point = centre + axes.T @ [30.0, -40.0, 2 * SPACING_MM]  # x, y within the slice, the third slice from the first
    made = []
    for number in range(4):
        inside = float(number == 2)
        row = waves(-40.0, FIELD_MM[1], MATRIX[1])[:, None] * waves(30.0, 2 * FIELD_MM[0], 2 * MATRIX[0]) * inside
        kspace = (row + 1e-3)[None, None].astype(np.complex64)
        slices = acquisitions_of(kspace, ("slice",), **placed(name, centre + number * SPACING_MM * axes[2]))
        for readout in slices:
            readout.idx.slice = number
        made += slices
    xml = scan_header(
        (2 * MATRIX[0], MATRIX[1], 1),
        recon=(*MATRIX, 1),
        field_mm=(2 * FIELD_MM[0], FIELD_MM[1], 5),
        recon_field_mm=(*FIELD_MM, 5),
    )
    raw, elements = read(write_scan(tmp_path / "a.h5", made, xml))
    affine = np.array(raw.attributes["recon_affine"])
    image = np.abs(image_of(elements["kspace"][0][:, 0], (-2, -1)))
    z, y, x = np.unravel_index(image.argmax(), image.shape)
    assert z == 2
    np.testing.assert_allclose(nibabel.affines.apply_affine(affine, [x, y, z]), point * LPS_TO_RAS, atol=1e-3)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(affine), [10, 10, SPACING_MM], atol=1e-4)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_points_of_volumes_lie_where_the_affine_says(tmp_path, name):
    axes, centre, field, count = DIRECTIONS[name], np.array([-5.0, 60.0, 11.0]), 80.0, 8
    point = centre + axes.T @ [-20.0, 50.0, -30.0]
    kspace = (
        waves(-30.0, field, count)[:, None, None]
        * waves(50.0, FIELD_MM[1], MATRIX[1])[:, None]
        * waves(-20.0, FIELD_MM[0], MATRIX[0])
    )[:, None].astype(np.complex64)
    made = acquisitions_of(kspace, ("kspace_encode_step_2",), **placed(name, centre))
    raw, elements = read(
        write_scan(tmp_path / "a.h5", made, scan_header((*MATRIX, count), field_mm=(*FIELD_MM, field)))
    )
    affine = np.array(raw.attributes["recon_affine"])
    image = np.abs(image_of(elements["kspace"][0][:, 0], (0, 1, 2)))
    z, y, x = np.unravel_index(image.argmax(), image.shape)
    np.testing.assert_allclose(nibabel.affines.apply_affine(affine, [x, y, z]), point * LPS_TO_RAS, atol=1e-3)


def test_orientations_have_their_names(tmp_path):
    expected = {"axial": "LPS", "flipped": "RPS", "sagittal": "PIL"}
    for name, codes in expected.items():
        made = acquisitions_of(random_kspace((1, 1, 4, 4)), ("slice",), **placed(name, np.zeros(3)))
        raw, _ = read(write_scan(tmp_path / f"{name}.h5", made, scan_header((4, 4, 1))))
        assert "".join(nibabel.aff2axcodes(np.array(raw.attributes["recon_affine"]))) == codes


IRREGULAR = {
    "no directions": lambda number: {},
    "uneven spacing": lambda number: placed("axial", np.array([0, 0, number**2])),
    "other directions": lambda number: placed("axial" if number else "flipped", np.array([0, 0, number])),
    "no unit vectors": lambda number: placed("axial", np.array([0, 0, number])) | {"read_dir": (2.0, 0.0, 0.0)},
    "one place": lambda number: placed("axial", np.zeros(3)),
}


@pytest.mark.parametrize("case", IRREGULAR)
def test_irregular_slices_have_no_affine(tmp_path, case):
    made = []
    for number in range(3):
        slices = acquisitions_of(random_kspace((1, 1, 4, 4)), ("slice",), **IRREGULAR[case](number))
        for readout in slices:
            readout.idx.slice = number
        made += slices
    raw, _ = read(write_scan(tmp_path / "a.h5", made, scan_header((4, 4, 1))))
    assert "recon_affine" not in raw.attributes


def image(data, name="axial", position=(0, 0, 0), **head):
    made = ismrmrd.Image.from_array(data, transpose=False, **head)
    made.field_of_view = (40.0, 20.0, 5.0)
    for key, value in placed(name, np.asarray(position)).items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.complex64])
def test_images_beside_acquisitions_are_reconstructions(tmp_path, rng, dtype):
    stack = (1000 * rng.random((3, 4, 8))).astype(dtype)
    if dtype == np.complex64:
        stack = stack * 1j
    kind = ismrmrd.IMTYPE_COMPLEX if dtype == np.complex64 else ismrmrd.IMTYPE_MAGNITUDE
    path = write_scan(
        tmp_path / "a.h5", acquisitions_of(random_kspace((3, 2, 4, 8)), ("slice",)), scan_header((8, 4, 1))
    )
    axes = DIRECTIONS["oblique"]
    images = [
        image(stack[n], "oblique", position=6 * n * axes[2], slice=n, image_type=kind, image_index=n) for n in (2, 0, 1)
    ]
    append_images(path, images)
    _, elements = read(path)
    stored, element = elements["recon/image-0"]
    np.testing.assert_array_equal(stored, stack)
    assert element.dims == ("slice", "y", "x")
    assert stored.dtype == (np.complex64 if dtype == np.complex64 else np.float32)
    expected = np.eye(4)
    expected[:3, :3] = (axes * LPS_TO_RAS).T @ np.diag([5, 5, 6])
    expected[:3, 3] = -expected[:3, :3] @ [4, 2, 0]
    np.testing.assert_allclose(element.affine, expected, atol=1e-4)


def test_images_alone_are_an_image_volume(tmp_path, rng):
    stack = rng.random((2, 3, 4, 8)).astype(np.float32)
    images = [image(stack[f, n], position=(0, 0, 6 * n), slice=n, phase=f) for f in range(2) for n in range(3)]
    for with_header in (True, False):
        path = tmp_path / f"{with_header}.h5"
        if with_header:
            write_scan(path, [], scan_header((8, 4, 1)))
        append_images(path, images)
        raw, elements = read(path)
        stored, element = elements["image/image-0"]
        assert element.dims == ("frame", "slice", "y", "x")
        np.testing.assert_array_equal(stored, stack)
        assert ("ismrmrd_xml" in raw.attributes) == with_header
        assert get_format("ismrmrd").identify(find_items([path])[0]).acquisition == (
            "GRE" if with_header else "ismrmrd"
        )


def test_images_that_are_no_stack_are_left_out_and_stated(tmp_path, rng):
    path = write_scan(
        tmp_path / "a.h5", acquisitions_of(random_kspace((1, 2, 4, 8)), ("slice",)), scan_header((8, 4, 1))
    )
    plane = rng.random((4, 8)).astype(np.float32)
    append_images(path, [image(plane, image_type=ismrmrd.IMTYPE_PHASE)])
    append_images(path, [image(rng.random((2, 1, 4, 8)).astype(np.float32))], name="image_1")
    append_images(path, [image(plane, slice=1), image(plane, slice=1)], name="DOE JOHN")
    raw, elements = read(path)
    assert list(elements) == ["kspace"]
    assert raw.attributes["images_left_out"] == {
        "image-0": "image type [2]",
        "image-1": "2 channels",
        "other-0": "slices that do not form one stack",
    }


def test_a_data_set_without_anything_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"a\.h5: data set: expected acquisitions or images, got no acquisitions and"):
        read(write_scan(tmp_path / "a.h5", [], scan_header((8, 4, 1))))
