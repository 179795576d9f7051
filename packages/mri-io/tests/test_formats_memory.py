"""What formats that are packed as a whole hold at most, all processes together, against what is said of them."""

import gzip
import sys
import zlib

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mri_io.formats import find_items, get_format
from mri_io.testing.image_files import image, write_metaimage, write_nrrd
from mri_io.testing.peak_memory import peak_growth

CONVERT = """
from mri_io.convert import convert
assert convert([sys.argv[{}]], sys.argv[3], progress=False).ok
"""
SLICES, ROWS, COLUMNS = 768, 512, 512


def large_metaimage(folder):
    """Write 403 MB that are packed to less than one; the values differ from slice to slice."""
    header = (
        f"ObjectType = Image\nNDims = 3\nDimSize = {COLUMNS} {ROWS} {SLICES}\nBinaryDataByteOrderMSB = False\n"
        "ElementType = MET_SHORT\nCompressedData = True\nElementDataFile = large.zraw\n"
    )
    packed = zlib.compressobj()
    with (folder / "large.zraw").open("wb") as file:
        for number in range(SLICES):
            file.write(packed.compress(np.full((ROWS, COLUMNS), number, "<i2").tobytes()))
        file.write(packed.flush())
    (folder / "large_t2.mhd").write_text(header)
    return folder / "large_t2.mhd", write_metaimage(folder / "small_t2.mha", image(), compress=True)


def large_nrrd(folder):
    """Write 403 MB in which the two members of a series lie side by side."""
    header = (
        f"NRRD0004\ntype: short\ndimension: 4\nsizes: 2 {COLUMNS} {ROWS} {SLICES // 2}\nendian: little\n"
        "kinds: list domain domain domain\nencoding: gzip\n\n"
    )
    with (folder / "large_t2.nrrd").open("wb") as file:
        file.write(header.encode())
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
            for number in range(SLICES // 2):
                packed.write(np.full((ROWS, COLUMNS, 2), (number, -number), "<i2").tobytes())
    kinds = ["list", "domain", "domain", "domain"]
    return folder / "large_t2.nrrd", write_nrrd(folder / "small_t2.nrrd", image((2, 7, 6, 5)), kinds=kinds)


def large_png_pairs(folder):
    """Write frames of 201 MB, which are stored as 403, and masks of 201."""
    for size, name in ((SLICES, "large"), (2, "small")):
        for kind in ("Images", "Labels"):
            (folder / name / kind).mkdir(parents=True)
            for number in range(size):
                frame = Image.fromarray(np.full((ROWS, COLUMNS), number % 9, np.uint8))
                frame.save(folder / name / kind / f"{name}-IM-{number:04}.png", compress_level=1)
    return folder / "large", folder / "small"


@pytest.mark.skipif(sys.platform != "linux", reason="what libraries take differs")
@pytest.mark.parametrize(
    ("name", "write"), [("metaimage", large_metaimage), ("nrrd", large_nrrd), ("png-pairs", large_png_pairs)]
)
def test_memory_stays_below_what_is_claimed(tmp_path, name, write):
    large, small = write(tmp_path)
    (item,) = find_items([large])
    claimed = get_format(name).memory(item)
    # The small one first: it starts the process that parses, and loads the libraries.
    used = peak_growth(CONVERT.format(2), CONVERT.format(1), [large, small, tmp_path / "c"])
    assert used < claimed < SLICES * ROWS * COLUMNS * 2


@pytest.mark.skipif(sys.platform != "linux", reason="what libraries take differs")
def test_what_is_unpacked_whole_is_said(tmp_path):
    noise = np.random.default_rng(0).standard_normal((2, 4, 1024, 2048), np.float32).view(np.complex64)
    for name, array in (("large", noise), ("small", noise[:1, :1, :8, :8])):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"ksp": array}, do_compression=True)
    (item,) = find_items([tmp_path / "large.mat"])
    arrays = get_format("arrays")
    assert arrays.memory(item) - arrays.memory(find_items([tmp_path / "small.mat"])[0]) > 2 * noise.nbytes
    code = CONVERT.replace("progress", "options=ReadOptions(axes=('slice', 'coil', 'ky', 'kx')), progress")
    code = "from mri_io.formats.base import ReadOptions" + code
    files = [tmp_path / "large.mat", tmp_path / "small.mat", tmp_path / "c"]
    assert peak_growth(code.format(2), code.format(1), files) < arrays.memory(item)
