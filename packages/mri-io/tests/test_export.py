"""Exported files as nibabel, Pillow and the definition of BART's format read them, and the way back."""

import json

import nibabel
import numpy as np
import pytest
from nibabel.affines import apply_affine
from PIL import Image

from mri_io import create_cohort, open_cohort
from mri_io.convert import convert
from mri_io.errors import ConfigError, ElementExistsError, StoreError
from mri_io.export import export
from mri_io.testing import tiny_cohort

SHAPE = (3, 6, 5)  # slice, y, x
OBLIQUE = np.array([[1.9, 0.3, -0.5, 10], [-0.4, 1.8, 0.9, -20], [0.5, -0.6, 4.0, 30], [0, 0, 0, 1]])
AFFINES = {
    "straight": np.diag([2.0, 3.0, 5.0, 1.0]),
    "flipped": np.array([[-2.0, 0, 0, 90], [0, -3.0, 0, 80], [0, 0, 5.0, -7], [0, 0, 0, 1]]),
    "permuted": np.array([[0, 0, 4.0, 1], [2.0, 0, 0, 2], [0, -3.0, 0, 3], [0, 0, 0, 1]]),
    "oblique": OBLIQUE,
    "sheared": OBLIQUE @ np.array([[1, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
}
PARTS = {"magnitude": np.abs, "phase": np.angle, "real": np.real, "imag": np.imag, "complex": np.asarray}


@pytest.fixture
def complex_image(rng):
    return (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)).astype(np.complex64)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_points_of_a_nifti_lie_where_those_of_the_element_do(volume, tmp_path, made, rng, affine):
    array = rng.standard_normal((3, 7, 5)).astype(np.float32)
    labels = rng.choice([0, 1, 7], array.shape).astype(np.uint8)
    volume.write("image/t1", array, provenance=made, affine=affine)
    volume.write("seg/tissue", labels, provenance=made, affine=affine, labels={1: "one", 7: "seven"})
    (file, sidecar), (seg, names) = (export(volume[path], tmp_path, "nifti") for path in ("image/t1", "seg/tissue"))
    assert file.name == "sub-01_acq-t1_run-1_image-t1.nii.gz"
    assert json.loads(sidecar.read_text()) == {"EchoTime": 0.03, "Manufacturer": "SIEMENS"}
    assert json.loads(names.read_text()) == {"Labels": {"1": {"name": "one"}, "7": {"name": "seven"}}}
    image, map_ = nibabel.load(file), nibabel.load(seg)
    for x, y, z in [(0, 0, 0), (4, 6, 2), (1, 5, 1)]:
        world = affine[:3, :3] @ [x, y, z] + affine[:3, 3]
        np.testing.assert_allclose(apply_affine(image.affine, [x, y, z]), world, atol=1e-4)
        assert image.get_fdata()[x, y, z] == pytest.approx(float(array[z, y, x]))
        assert map_.dataobj[x, y, z] == labels[z, y, x]
    np.testing.assert_allclose(image.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (image.get_data_dtype(), map_.get_data_dtype()) == (np.float32, np.uint8)
    if affine is not AFFINES["sheared"]:  # which no quaternion can say
        orthogonal = np.allclose(affine[:3, :3].T @ affine[:3, :3], np.diag(np.diag(affine[:3, :3].T @ affine[:3, :3])))
        assert np.allclose(image.header.get_qform(), affine, atol=1e-4) == orthogonal


def test_a_nifti_comes_back_equal(volume, tmp_path, made, rng):
    image = rng.integers(-2000, 2000, (3, 7, 5)).astype(np.int16)
    labels = rng.choice([0, 1, 2], image.shape).astype(np.uint8)
    volume.write("image/t1", image, provenance=made, affine=OBLIQUE)
    volume.write("seg/tissue", labels, provenance=made, affine=OBLIQUE, labels={1: "one", 2: "two"})
    source, _ = export(volume["image/t1"], tmp_path / "out", "nifti")
    seg, names = export(volume["seg/tissue"], tmp_path / "labels", "nifti")
    seg.rename(seg.with_name("sub-01_acq-t1_run-1_image-t1_tissue.nii.gz"))
    names.unlink()
    assert convert([source], tmp_path / "back", labels=tmp_path / "labels", progress=False).ok
    (back,) = open_cohort(tmp_path / "back").volumes()
    assert back.subject_id == "sub-01"
    for path, array in (("image/image", image), ("seg/tissue", labels)):
        np.testing.assert_array_equal(back[path].numpy(), array)
        np.testing.assert_allclose(back[path].affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_complex_images(volume, tmp_path, made, part, complex_image):
    volume.write("recon/x", complex_image, provenance=made)
    file, sidecar = export(volume["recon/x"], tmp_path, "nifti", part=part)
    assert json.loads(sidecar.read_text()).get("Units") == ("rad" if part == "phase" else None)
    assert file.name == "sub-01_acq-t1_run-1_recon-x" + ("" if part == "magnitude" else f"_{part}") + ".nii.gz"
    image = nibabel.load(file)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, PARTS[part](complex_image))
    # No affine is known, and the file says so.
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)


def test_pngs_are_windowed_over_the_volume(volume, tmp_path, made, complex_image):
    scaled = complex_image * np.float32(1e-15)  # the units of the data do not matter
    volume.write("recon/x", scaled, provenance=made)
    files = export(volume["recon/x"], tmp_path, "png")
    assert [file.name[-12:] for file in files] == ["on-x_000.png", "on-x_001.png", "on-x_002.png"]
    values = np.abs(scaled).astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    for file, plane in zip(files, expected, strict=True):
        with Image.open(file) as image:
            assert image.mode == "L"
            assert np.abs(np.asarray(image) - plane).max() <= 0.51
            assert image.text["window"].startswith(f"{low:g} .. {high:g} ")


def test_pngs_of_labels_hold_ids_and_colours_of_their_own(volume, tmp_path, made, rng):
    labels = rng.choice([0, 1, 2, 6], SHAPE).astype(np.uint16)
    volume.write("seg/x", labels, provenance=made, labels={1: "a", 2: "b", 6: "c"})
    for file, plane in zip(export(volume["seg/x"], tmp_path, "png"), labels, strict=True):
        with Image.open(file) as image:
            np.testing.assert_array_equal(np.asarray(image), plane)
            places = {int(n): np.argwhere(plane == n)[0] for n in plane.flat}
            colours = {n: image.convert("RGB").getpixel((int(x), int(y))) for n, (y, x) in places.items()}
            assert colours[0] == (0, 0, 0)
            assert len(set(colours.values())) == len(colours)


def test_pngs_of_maps_with_failed_fits_and_of_constants(volume, tmp_path, made):
    qmap = np.linspace(0, 1, 90, dtype=np.float32).reshape(SHAPE)
    qmap[1] = np.nan
    volume.write("qmap/t2", qmap, provenance=made, attributes={"unit": "s"})
    volume.write("qmap/none", np.full(SHAPE, np.nan, np.float32), provenance=made, attributes={"unit": "s"})
    volume.write("recon/flat", np.full(SHAPE, 3, np.float32), provenance=made)
    planes = {
        path: [np.asarray(Image.open(file)) for file in export(volume[path], tmp_path, "png")]
        for path in ("qmap/t2", "qmap/none", "recon/flat")
    }
    assert [plane.max() > 0 for plane in planes["qmap/t2"]] == [True, False, True]
    assert not np.any(planes["qmap/none"])
    assert not np.any(planes["recon/flat"])


def read_cfl(header):
    """Read a pair by the definition of the format: dimensions in text, complex64, first index fastest."""
    lines = header.read_text().splitlines()
    dims = [int(word) for word in lines[lines.index("# Dimensions") + 1].split()]
    flat = np.frombuffer(header.with_suffix(".cfl").read_bytes(), "<f4")
    assert flat.size == 2 * np.prod(dims)
    values = flat[0::2] + 1j * flat[1::2]
    return lambda **at: values[np.ravel_multi_index([at.get(f"d{n}", 0) for n in range(len(dims))], dims, order="F")]


def test_bart_reads_what_is_written(tmp_path):
    first = tiny_cohort(tmp_path / "c", subjects=1, slices=3, coils=4, matrix=(10, 8)).volumes()[0]
    kspace, sens, image = (first[path] for path in ("kspace", "sens/espirit", "recon/reference"))
    at = read_cfl(export(kspace, tmp_path, "bart", part="complex")[0])
    for slice_, coil, ky, kx in [(0, 0, 0, 0), (2, 3, 9, 7), (1, 2, 5, 3)]:
        assert at(d0=kx, d1=ky, d3=coil, d13=slice_) == kspace[slice_][coil, ky, kx]
    at = read_cfl(export(sens, tmp_path, "bart")[0])
    assert at(d0=3, d1=4, d3=2, d4=0, d13=1) == sens[1][0, 2, 4, 3]
    at = read_cfl(export(image, tmp_path, "bart")[0])
    assert at(d0=3, d1=4, d13=2) == image[2][4, 3]


def test_k_space_comes_back_equal_from_bart(tmp_path):
    cohort = tiny_cohort(tmp_path / "c", subjects=2, slices=3, coils=4, matrix=(10, 8))
    for volume in cohort.volumes():
        export(volume["kspace"], tmp_path / "out", "bart")
    assert convert([tmp_path / "out"], tmp_path / "back", progress=False).ok
    back = open_cohort(tmp_path / "back").volumes()
    assert [volume.subject_id for volume in back] == ["sub-01", "sub-02"]
    for volume, other in zip(cohort.volumes(), back, strict=True):
        np.testing.assert_array_equal(other["kspace"].numpy(), volume["kspace"].numpy())


@pytest.mark.parametrize(
    ("dims", "place"),
    [
        (("kz",), {"d2": "kz"}),
        (("slice", "kz"), {"d13": "slice", "d2": "kz"}),
        (("set", "frame", "echo", "slice"), {"d11": "set", "d10": "frame", "d5": "echo", "d13": "slice"}),
    ],
)
def test_series_and_3d_k_space_come_back_equal_from_bart(volume, tmp_path, made, rng, dims, place):
    lengths = dict(zip(("set", "frame", "echo", "slice", "kz"), (2, 3, 2, 2, 4), strict=True))
    shape = (*(lengths[name] for name in dims), 2, 6, 5)
    kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    volume.write("kspace", kspace, provenance=made, dims=(*dims, *DIMS))
    files = export(volume["kspace"], tmp_path / "out", "bart")
    at = read_cfl(files[0])
    for index in [(0,) * len(dims), tuple(lengths[name] - 1 for name in dims)]:
        numbers = dict(zip(dims, index, strict=True))
        point = {"d0": 4, "d1": 2, "d3": 1} | {d: numbers[name] for d, name in place.items()}
        assert at(**point) == kspace[(*index, 1, 2, 4)]
    assert convert(files, tmp_path / "back", progress=False).ok
    (back,) = open_cohort(tmp_path / "back").volumes()
    assert back["kspace"].dims == (*dims, *DIMS)
    np.testing.assert_array_equal(back["kspace"].numpy(), kspace)


@pytest.mark.parametrize(("format", "path"), [("nifti", "image/t1"), ("png", "seg/tissue"), ("bart", "kspace")])
def test_files_are_not_overwritten_unasked_and_appear_whole(tiny, tmp_path, monkeypatch, format, path):
    element, out = tiny.volumes()[0][path], tmp_path / "new" / "folder"
    files = export(element, out, format)
    assert sorted(out.iterdir()) == sorted(files)
    before = [file.read_bytes() for file in files]
    files[-1].write_bytes(b"mine")
    for file in files[:-1]:
        file.unlink()
    with pytest.raises(ElementExistsError, match=r"exists already. To overwrite it: --replace"):
        export(element, out, format)
    assert (list(out.iterdir()), files[-1].read_bytes()) == ([files[-1]], b"mine")

    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(element), "numpy", fail)
        patch.setattr(type(element), "__getitem__", fail)
        with pytest.raises(KeyboardInterrupt):
            export(element, out, format, replace=True)
    assert (list(out.iterdir()), files[-1].read_bytes()) == ([files[-1]], b"mine")
    assert export(element, out, format, replace=True) == files
    assert [file.read_bytes() for file in files] == before


def test_what_a_format_cannot_hold_is_refused(tmp_path, made, complex_image):
    cohort = create_cohort(tmp_path / "c")
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("kspace", np.ones((2, 3, 1, 4, 5), np.complex64), provenance=made, dims=("frame", "slice", *DIMS))
        volume.write("noise", np.ones((1, 9), np.complex64), provenance=made)
        volume.write("recon/x", complex_image, provenance=made)
        volume.write("image/x", np.ones(SHAPE, np.float32), provenance=made)
        volume.write("seg/x", np.full(SHAPE, 300, np.uint16), provenance=made, labels={300: "large"})
    volume = cohort.volumes()[0]
    cases = [
        ("kspace", "nifti", "magnitude", r"element for nifti: expected an image, reconstruction or label map"),
        ("kspace", "png", "magnitude", r"element for png: expected an image"),
        ("noise", "bart", None, r"BART has no place for dimensions \('coil', 'sample'\)"),
        ("recon/x", "png", "complex", r"png cannot hold complex values. Choose --part magnitude or phase"),
        (
            "recon/x",
            "bart",
            "phase",
            r"recon/x: part: expected complex, all that bart writes, got phase\. Leave --part",
        ),
        ("recon/x", "bart", "magnitude", r"part: expected complex, all that bart writes, got magnitude"),
        ("image/x", "nifti", "phase", r"the element is real and has no phase"),
        ("seg/x", "png", "magnitude", r"label ids above 255 do not fit a PNG with a palette; export nifti"),
        ("image/x", "tiff", "magnitude", r"format: expected nifti, .*got 'tiff'"),
        ("recon/x", "nifti", "angle", r"part: expected magnitude, phase, real, imag, complex, got 'angle'"),
    ]
    for path, format, part, message in cases:
        with pytest.raises(ConfigError, match=message):
            export(volume[path], tmp_path / "out", format, part=part)
    assert not (tmp_path / "out").exists()


DIMS = ("coil", "ky", "kx")


def test_a_folder_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file: cannot write: (File exists|Not a directory)"):
        export(tiny.volumes()[0]["image/t1"], tmp_path / "file", "nifti")
