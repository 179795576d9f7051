"""MetaImage: what SimpleITK wrote, in RAS+."""

import zlib

import numpy as np
import pytest
import SimpleITK

from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, find_sources
from mri_io.testing.image_files import AFFINES, box, image, read_one, values, volumes, write_metaimage


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_arrays_in_one_file_and_two(tmp_path, ending, compress):
    array = image()
    path = write_metaimage(tmp_path / f"a_t2{ending}", array, AFFINES["oblique"], compress=compress)
    item, raw = read_one(path)
    assert len(item.files) == (1 if ending == ".mha" else 2)
    (element,) = raw.elements
    assert element.path == "image/t2"
    np.testing.assert_array_equal(values(element), array.T)
    np.testing.assert_allclose(element.affine, AFFINES["oblique"], atol=1e-5)


def test_the_data_of_a_header_are_no_file_of_their_own(tmp_path):
    for name, compress in (("a.mhd", False), ("b.mhd", True)):
        write_metaimage(tmp_path / name, image(), compress=compress)
    (tmp_path / "c.raw").write_bytes(bytes(840))
    found = find_sources([tmp_path])
    assert [item.path.name for item in found.items] == ["a.mhd", "b.mhd"]
    assert [path.name for path in found.passed_over] == ["c.raw"]
    assert find_items([tmp_path / "b.zraw"])[0].path.name == "b.mhd"


@pytest.mark.parametrize("compress", [False, True])
def test_the_fourth_dimension_is_time(tmp_path, compress, monkeypatch):
    monkeypatch.setattr("mri_io.formats.images.files.BLOCK_BYTES", 2 * 7 * 6 * 8)
    array = image((7, 6, 5, 4), np.int16)
    _, raw = read_one(write_metaimage(tmp_path / "a.mha", array, AFFINES["oblique"], compress=compress))
    (element,) = raw.elements
    assert element.dims == ("frame", "slice", "y", "x")
    assert element.dtype == np.int16
    assert [len(block) for block in element.blocks()] == [2, 2, 1] * 4
    np.testing.assert_array_equal(values(element), array.T)


def test_label_maps_are_joined(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_metaimage(folder / "Case00.mhd", image(), AFFINES["oblique"])
    write_metaimage(folder / "Case00_segmentation.mhd", box(), AFFINES["oblique"])  # as PROMISE12 names them
    summary = convert([folder], tmp_path / "c", progress=False)
    assert not summary.failures
    (volume,) = volumes(tmp_path / "c")
    np.testing.assert_array_equal(np.asarray(volume["seg/segmentation"][...]), box().T)


def test_bad_files_are_refused(tmp_path):
    def damaged(name, old, new, **options):
        path = write_metaimage(tmp_path / name, image(), **options)
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        return path

    short = write_metaimage(tmp_path / "short.mha", image())
    short.write_bytes(short.read_bytes()[:-600])
    packed = write_metaimage(tmp_path / "packed.mha", image((30, 30, 30)), compress=True)
    packed.write_bytes(packed.read_bytes()[:9000])
    lost = write_metaimage(tmp_path / "lost.mhd", image())
    (tmp_path / "lost.raw").unlink()
    text = tmp_path / "text.mha"
    text.write_bytes(b"no image\n")
    vectors = SimpleITK.GetImageFromArray(np.zeros((5, 6, 7, 3), np.float32), isVector=True)
    SimpleITK.WriteImage(vectors, str(tmp_path / "vectors.mha"))
    cases = [
        (short, r"short\.mha: size: expected 840 bytes of data"),
        (packed, r"packed\.mha: expected a readable MetaImage"),
        (lost, r"lost\.raw: expected beside lost\.mhd, found no file"),
        (text, r"text\.mha: expected a readable MetaImage, got: text\."),
        (tmp_path / "vectors.mha", "dimensions: expected .*one number per voxel, got .* with 3"),
        (
            damaged("big.mha", b"DimSize = 7 6 5", b"DimSize = 70000 60000 50000"),
            "size: expected 840000000000000 bytes",
        ),
        (damaged("list.mha", b"ElementDataFile = LOCAL", b"ElementDataFile = LIST"), "data file: expected one file"),
        (damaged("type.mha", b"MET_FLOAT", b"MET_NOTHING"), "expected a readable MetaImage|size: expected"),
        (damaged("zero.mha", b"TransformMatrix = 1 0 0", b"TransformMatrix = 0 0 0"), "expected a readable MetaImage"),
    ]
    for path, message in cases:
        with pytest.raises(FormatError, match=message):
            values(read_one(path)[1].elements[0])


@pytest.mark.parametrize("msb", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
@pytest.mark.parametrize("where", ["LOCAL", "behind a header", "beside"])
def test_compressed_data_are_what_itk_reads(tmp_path, where, msb):
    array = np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6) * 200
    data = zlib.compress(array.astype(">i2").tobytes())
    skipped = b"x" * 11 if where == "behind a header" else b""
    header = (
        f"ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\n{msb} = True\nElementType = MET_SHORT\n"
        f"CompressedData = True\nCompressedDataSize = {len(data)}\nHeaderSize = {len(skipped)}\n"
        f"ElementDataFile = {'LOCAL' if where == 'LOCAL' else 'a.zraw'}\n"
    )
    path = tmp_path / "a_t2.mha"
    path.write_bytes(header.encode() + (data if where == "LOCAL" else b""))
    if where != "LOCAL":
        (tmp_path / "a.zraw").write_bytes(skipped + data)
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="MetaImageIO"))
    np.testing.assert_array_equal(itk, array)
    np.testing.assert_array_equal(values(read_one(path)[1].elements[0]), itk)


def test_compressed_data_are_checked_to_their_end(tmp_path):
    path = write_metaimage(tmp_path / "a_t2.mha", image(), compress=True)
    whole = path.read_bytes()
    for damaged in (whole[:-3], whole[:-4] + bytes(4)):  # within the sum behind the data
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"a_t2\.mha: expected a readable MetaImage"):
            values(read_one(path)[1].elements[0])


@pytest.mark.parametrize("name", ["MET_LONG", "MET_INT"])
def test_long_integers_have_four_bytes(tmp_path, name):
    array = np.arange(24, dtype="<i4").reshape(2, 3, 4) * 10_000
    (tmp_path / "a.raw").write_bytes(array.tobytes())
    fields = ("ObjectType = Image", "NDims = 3", "DimSize = 4 3 2", "ElementSpacing = 1 1 1")
    path = tmp_path / "a.mhd"
    path.write_text("\n".join((*fields, f"ElementType = {name}", "ElementDataFile = a.raw", "")))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), array)
    _, raw = read_one(path)
    np.testing.assert_array_equal(values(raw.elements[0]), array)
