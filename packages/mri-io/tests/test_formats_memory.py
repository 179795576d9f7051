"""What formats that are packed as a whole hold at most, all processes together, against what is said of them."""

import sys
import zlib

import numpy as np
import pytest

from mri_io.formats import find_items, get_format
from mri_io.testing.image_files import image, write_metaimage
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


@pytest.mark.skipif(sys.platform != "linux", reason="what libraries take differs")
@pytest.mark.parametrize(("name", "write"), [("metaimage", large_metaimage)])
def test_memory_stays_below_what_is_claimed(tmp_path, name, write):
    large, small = write(tmp_path)
    (item,) = find_items([large])
    claimed = get_format(name).memory(item)
    # The small one first: it starts the process that parses, and loads the libraries.
    used = peak_growth(CONVERT.format(2), CONVERT.format(1), [large, small, tmp_path / "c"])
    assert used < claimed < SLICES * ROWS * COLUMNS * 2
