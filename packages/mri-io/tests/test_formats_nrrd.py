"""NRRD: spaces to RAS+, series by kinds, detached data, compared with what pynrrd writes and reads."""

import bz2
import errno
import gzip
import io

import nrrd
import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.errors import FormatError, StoreError
from mri_io.formats import find_items
from mri_io.testing.image_files import AFFINES, box, image, read_one, values, volumes, write_nrrd
from mri_io.testing.raw_files import NAME, random_kspace, write_fastmri


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
def test_affines_of_all_spaces(tmp_path, space):
    affine, array = AFFINES["oblique and flipped"], image()
    signs = {"left-posterior-superior": (-1, -1, 1), "RAS": (1, 1, 1), "left-anterior-superior": (-1, 1, 1)}[space]
    here = np.diag([*signs, 1.0]) @ affine
    header = {"space": space, "space directions": here[:3, :3].T, "space origin": here[:3, 3]}
    _, raw = read_one(write_nrrd(tmp_path / "a_t2.nrrd", array, **header))
    (element,) = raw.elements
    assert element.path == "image/t2"
    np.testing.assert_allclose(element.affine, affine, atol=1e-12)
    np.testing.assert_array_equal(values(element), array.T)
    voxel = np.linalg.norm(affine[:3, :3], axis=0) / 1000
    assert raw.header.recon_fov_m == pytest.approx(voxel * array.shape)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "uint16", "float32", ">f8"])
def test_encodings_and_types(tmp_path, encoding, dtype):
    array = image(dtype=dtype)
    for path, data in ((tmp_path / "a.nrrd", None), (tmp_path / "b.nhdr", tmp_path / f"b.{encoding}")):
        write_nrrd(path, array, AFFINES["axial"], data=data, encoding=encoding)
        item, raw = read_one(path)
        assert len(item.files) == 1 + (data is not None)
        assert data is None or find_items([data])[0].path == path
        expected, _ = nrrd.read(str(path))
        np.testing.assert_array_equal(values(raw.elements[0]), expected.astype(np.float32).T)
        assert raw.elements[0].dtype == (np.float32 if np.dtype(dtype).kind == "f" else np.int16)


@pytest.mark.parametrize(
    ("first", "kind", "series"), [(True, "list", "set"), (False, "time", "frame"), (True, "vector", "set")]
)
def test_series_first_and_last(tmp_path, first, kind, series):
    array = image((4, 7, 6, 5) if first else (7, 6, 5, 4))
    directions = np.full((4, 3), np.nan)
    directions[slice(1, 4) if first else slice(0, 3)] = np.diag([2.0, 3.0, 4.0])
    kinds = ["domain"] * 3
    kinds.insert(0 if first else 3, kind)
    header = {"space": "RAS", "space directions": directions, "space origin": [1.0, 2, 3], "kinds": kinds}
    _, raw = read_one(write_nrrd(tmp_path / "a.nrrd", array, **header))
    (element,) = raw.elements
    assert element.dims == (series, "slice", "y", "x")
    np.testing.assert_array_equal(values(element), (np.moveaxis(array, 0, 3) if first else array).T)
    np.testing.assert_array_equal(np.asarray(element.affine)[:3, 3], [1, 2, 3])


def test_without_a_space_there_is_no_affine(tmp_path):
    _, raw = read_one(write_nrrd(tmp_path / "a.nrrd", image(), spacings=[2.0, 3.0, 4.0]))
    assert raw.elements[0].affine is None
    assert raw.header.recon_fov_m == pytest.approx((0.014, 0.018, 0.02))


def test_units_of_space(tmp_path):
    header = {"space": "RAS", "space directions": np.eye(3), "space origin": [1.0, 2, 3], "space units": ["cm"] * 3}
    _, raw = read_one(write_nrrd(tmp_path / "a.nrrd", image(), **header))
    np.testing.assert_array_equal(
        raw.elements[0].affine, [[10, 0, 0, 10], [0, 10, 0, 20], [0, 0, 10, 30], [0, 0, 0, 1]]
    )


def test_segmentations_of_slicer_are_labels_with_names(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_nrrd(folder / "scan_image.nrrd", image(), AFFINES["oblique"])
    segments = {
        "Segment0_Name": "gland",
        "Segment0_LabelValue": "1",
        "Segment1_Name": "lesion",
        "Segment1_LabelValue": "2",
    }
    write_nrrd(folder / "scan.seg.nrrd", box(ids=(1, 2)), AFFINES["oblique"], **segments)
    assert not convert([folder], tmp_path / "c", progress=False).failures
    (volume,) = volumes(tmp_path / "c")
    names = {key: entry["name"] for key, entry in volume["seg/seg"].labels.items()}
    assert names == {1: "gland", 2: "lesion"}
    for file in (tmp_path / "c").rglob("*.json*"):
        assert NAME not in file.read_text()


def test_label_maps_given_beside_raw_data(tmp_path):
    kspace = write_fastmri(tmp_path / "file1.h5", random_kspace((5, 2, 6, 7)))
    labels = tmp_path / "maps"
    labels.mkdir()
    voxel = np.diag([220 / 7, 220 / 6, 5, 1])
    write_nrrd(labels / "file1_tissue.nrrd", box(ids=(1, 2)), voxel)
    (labels / "labels.json").write_text('{"tissue": {"1": "grey matter", "2": "white matter"}}')
    assert not convert([kspace], tmp_path / "c", labels=labels, progress=False).failures
    (volume,) = volumes(tmp_path / "c")
    seg = volume["seg/tissue"]
    np.testing.assert_array_equal(np.asarray(seg[...]), box(ids=(1, 2)).T)
    assert [entry["name"] for entry in seg.labels.values()] == ["grey matter", "white matter"]
    write_nrrd(labels / "file1_tissue.nrrd", box(), np.diag([1.0, 220 / 6, 5, 1]))
    (failure,) = convert([kspace], tmp_path / "c2", labels=labels, progress=False).failures
    assert "label pixel size (mm): expected" in failure.error


def test_bad_files_are_refused(tmp_path):
    def damaged(name, old, new, **header):
        path = write_nrrd(tmp_path / name, image(), AFFINES["axial"], **header)
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        return path

    cut = write_nrrd(tmp_path / "cut.nrrd", image((30, 30, 30)), AFFINES["axial"])
    cut.write_bytes(cut.read_bytes()[:50000])
    raw = write_nrrd(tmp_path / "raw.nrrd", image(), encoding="raw")
    raw.write_bytes(raw.read_bytes()[:800])
    lost = write_nrrd(tmp_path / "lost.nhdr", image(), data=tmp_path / "lost.raw.gz")
    (tmp_path / "lost.raw.gz").unlink()
    nothing = tmp_path / "nothing.nrrd"
    nothing.write_bytes(b"NRRD0004\n\n")
    colours = write_nrrd(tmp_path / "rgb.nrrd", image((3, 7, 6, 5)), kinds=["RGB-color", *["domain"] * 3])
    cases = [
        (cut, r"cut\.nrrd: expected a readable NRRD image.*bytes are missing|Compressed file ended"),
        (raw, r"raw\.nrrd: size: expected 840 bytes of data"),
        (lost, r"lost\.raw\.gz: expected beside lost\.nhdr, found no file"),
        (nothing, r"nothing\.nrrd: expected a readable NRRD image"),
        (colours, "kind of axis 0: expected time, list, vector, covariant-vector, got 'rgb-color'"),
        (damaged("big.nrrd", b"sizes: 7 6 5", b"sizes: 70000 60000 50000"), "size: expected 840000000000000 bytes"),
        (damaged("neg.nrrd", b"sizes: 7 6 5", b"sizes: -7 6 5"), "dimensions: expected lengths from 1"),
        (damaged("s.nrrd", b"left-posterior-superior", b"scanner-xyz"), "space: expected .* got 'scanner-xyz'"),
        (damaged("t.nrrd", b"type: float", b"type: block"), "type: expected integers or floats, got 'block'"),
        (damaged("e.nrrd", b"encoding: gzip", b"encoding: hex"), "encoding: expected raw, gzip.* got 'hex'"),
        (write_nrrd(tmp_path / "two.nrrd", image((7, 6))), "axes: expected three of space"),
    ]
    for path, message in cases:
        with pytest.raises(FormatError, match=message):
            values(read_one(path)[1].elements[0])


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        ("line skip: 30000000", "line skip: expected no more than the file has, got 30000000 in a file of"),
        ("line skip: 300", "fewer than the 300 lines to be skipped"),
        ("line skip: -4", "line skip: expected"),
        ("byte skip: 30000000000", "byte skip: expected no more than the file has"),
        ("byte skip: -7", "byte skip: expected"),
    ],
)
def test_more_to_skip_than_there_is_is_refused(tmp_path, skip, message):
    path = write_nrrd(tmp_path / "a.nrrd", image(), encoding="raw")
    path.write_bytes(path.read_bytes().replace(b"encoding: raw", f"encoding: raw\n{skip}".encode()))
    with pytest.raises(FormatError, match=message):
        values(read_one(path)[1].elements[0])


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_lines_and_bytes_are_skipped(tmp_path, encoding):
    data = image().tobytes(order="F")
    packed = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding](b"x" * 3_000_000 + data)
    (tmp_path / "a.raw").write_bytes(b"one\ntwo\n" + packed)
    head = f"NRRD0004\ntype: float\ndimension: 3\nsizes: 7 6 5\nendian: little\nencoding: {encoding}\n"
    (tmp_path / "a.nhdr").write_text(f"{head}line skip: 2\nbyte skip: 3000000\ndata file: a.raw\n\n")
    np.testing.assert_array_equal(values(read_one(tmp_path / "a.nhdr")[1].elements[0]), image().T)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_series_in_front_is_taken_apart_in_pieces(tmp_path, monkeypatch, encoding):
    array = image((3, 7, 6, 5))
    path = write_nrrd(tmp_path / "a.nrrd", array, kinds=["list", *["domain"] * 3], encoding=encoding)
    monkeypatch.setattr("mri_io.formats.nrrd._TAKEN_APART_BYTES", 100)
    np.testing.assert_array_equal(values(read_one(path)[1].elements[0]), np.moveaxis(array, 0, 3).T)


def test_no_room_to_take_a_series_apart_is_said(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = write_nrrd(tmp_path / "a.nrrd", image((3, 7, 6, 5)), kinds=["list", *["domain"] * 3])
    monkeypatch.setattr("mri_io.formats.nrrd.TemporaryFile", Full)
    with pytest.raises(StoreError, match=r"no room for the members of .*a\.nrrd, 0 MB .*TMPDIR"):
        values(read_one(path)[1].elements[0])


def test_a_gzip_stream_is_not_unpacked_beyond_what_the_header_claims(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", image((7, 6, 5), np.uint8), encoding="raw")
    head, _, data = path.read_bytes().replace(b"encoding: raw", b"encoding: gzip").partition(b"\n\n")
    path.write_bytes(head + b"\n\n" + gzip.compress(data + bytes(50_000_000)))
    np.testing.assert_array_equal(values(read_one(path)[1].elements[0]), image((7, 6, 5), np.uint8).T)


@pytest.mark.realdata
def test_a_real_brain_with_its_tumour(real_data, tmp_path):
    folder = real_data / "brain_tumour"
    assert not convert([folder], tmp_path / "c", progress=False).failures
    (volume,) = volumes(tmp_path / "c")
    assert set(volume.elements()) == {"image/image", "seg/label"}
    array, header = nrrd.read(str(folder / "brain1_label.nrrd"))
    stored = np.asarray(volume["seg/label"][...])
    np.testing.assert_array_equal(stored, array.T)
    affine = np.asarray(volume["seg/label"].affine)
    # LPS: x and y point the other way than in RAS.
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [*(header["space origin"] * [-1, -1, 1]), 1])
    last = header["space origin"] + header["space directions"].T @ [255, 255, 24]
    np.testing.assert_allclose((affine @ [255, 255, 24, 1])[:3], last * [-1, -1, 1])
    ml = (array > 0).sum() * abs(np.linalg.det(header["space directions"])) / 1000
    assert (stored > 0).sum() * abs(np.linalg.det(affine)) / 1000 == pytest.approx(ml)
    np.testing.assert_array_equal(
        np.asarray(volume["image/image"][...]), nrrd.read(str(folder / "brain1_image.nrrd"))[0].T
    )
