"""Writing in blocks finer than a row of the first dimension: same files, what does not fit, and bounded memory."""

import re

import numpy as np
import pytest

from mri_io import open_cohort, open_volume
from mri_io.errors import NonFiniteError, ShapeError
from mri_io.testing.peak_memory import peak_growth

SHAPE = (2, 3, 4, 2, 6, 5)  # echo, slice, kz, coil, ky, kx
DIMS = ("echo", "slice", "kz", "coil", "ky", "kx")


@pytest.fixture
def kspace(rng):
    return (rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)).astype(np.complex64)


def write(volume, made, blocks, shape=SHAPE, dims=DIMS):
    with volume.writer("kspace", shape=shape, dtype="complex64", provenance=made, dims=dims) as writer:
        for block in blocks:
            writer.append(block)
    return volume["kspace"]


def files(element):
    found = sorted(file for file in (element.folder / "data").rglob("*") if file.is_file())
    return [(file.relative_to(element.folder), file.read_bytes()) for file in found]


CUTS = {
    "rows": lambda k: k,
    "slices": lambda k: [s[None] for echo in k for s in echo],
    "some slices": lambda k: [part for echo in k for part in (echo[:2], echo[2:])],
    "partitions": lambda k: [p[None] for echo in k for s in echo for p in s],
    "some partitions": lambda k: [part for echo in k for s in echo for part in (s[:3], s[3:])],
    "mixed": lambda k: [k[0, 0, :1], k[0, 0, 1:], k[0, 1:], k[1:]],
    "with empty ones": lambda k: [k[:0], k[0, :0], k[0], k[1, 0, :0], k[1]],
}


@pytest.mark.parametrize("cut", CUTS)
def test_finer_blocks_give_the_files_of_one_write(volume, made, kspace, cut):
    whole = open_cohort(volume.path.parents[1])
    with whole.create_volume("sub-01_acq-whole_run-1", subject_id="sub-01") as other:
        other.write("kspace", kspace, provenance=made, dims=DIMS)
    blocks = [block[None] for block in kspace] if cut == "rows" else CUTS[cut](kspace)
    element = write(volume, made, blocks)
    np.testing.assert_array_equal(open_volume(volume.path)["kspace"].numpy(), kspace)
    assert files(element) == files(other["kspace"])


BAD = {
    "over the end of an echo": (
        lambda k: [k[0, :2], k[0, :2]],
        r"block: expected at most 1 rows of shape (4, 2, 6, 5), got (2, 4, 2, 6, 5)",
    ),
    "a row within a row": (
        lambda k: [k[0, :1], k[:1]],
        r"block: expected the rest of a row, 8 chunks of shape (2, 6, 5), got (1, 3, 4, 2, 6, 5)",
    ),
    "slices within a slice": (
        lambda k: [k[0, 0, :3], k[0, 1:2]],
        r"block: expected the rest of a row, 1 chunks of shape (2, 6, 5), got (1, 4, 2, 6, 5)",
    ),
    "a part of a chunk": (
        lambda k: [k[0, 0, 0]],
        r"block: expected at most 2 rows of shape (3, 4, 2, 6, 5), got (2, 6, 5)",
    ),
    "other slices": (
        lambda k: [k[0, :, :, :, :5]],
        r"block: expected at most 3 rows of shape (4, 2, 6, 5), got (3, 4, 2, 5, 5)",
    ),
    "a number": (lambda k: [k[0, 0, 0, 0, 0, 0]], r"block: expected at most 2 rows of shape (3, 4, 2, 6, 5), got ()"),
    "too many": (lambda k: [k, k[0, :1]], r"block: expected at most 0 rows of shape (4, 2, 6, 5), got (1, 4, 2, 6, 5)"),
    "too few": (lambda k: [k[0], k[1, :2]], "rows: expected 2, got 1 and a part of the next"),
    "an echo missing": (lambda k: [k[0]], "rows: expected 2, got 1."),
}


@pytest.mark.parametrize("case", BAD)
def test_blocks_that_do_not_fit_leave_nothing(volume, made, kspace, case):
    cut, message = BAD[case]
    with pytest.raises(ShapeError, match=re.escape(message)):
        write(volume, made, cut(kspace))
    assert volume.elements() == {}
    assert list((volume.path.parent / ".staging").glob("*")) == []


def test_values_are_named_by_their_place_in_the_whole_array(volume, made, kspace):
    kspace[1, 2, 1, 0, 3, 4] = np.nan
    with pytest.raises(NonFiniteError, match=r"1 NaN or infinite, the first at index \(1, 2, 1, 0, 3, 4\)"):
        write(volume, made, [kspace[0], kspace[1, :2], kspace[1, 2:]])


def test_whole_arrays_are_not_divided(volume, made):
    with (
        pytest.raises(ShapeError, match=r"block: expected at most 6 rows of shape \(5,\), got \(5,\)"),
        volume.writer("mask/a", shape=(6, 5), dtype="uint8", provenance=made, dims=("ky", "kx")) as writer,
    ):
        writer.append(np.ones(5, np.uint8))


ROW = (160, 8, 256, 120)  # 300 MiB of complex64
BEFORE = """
import numpy as np
from mri_io import create_cohort
from mri_io.schema import Provenance
import mri_io.store.volume, mri_io.store.splits

shape = tuple(map(int, sys.argv[2:]))
made = Provenance(method="test", package="mri-io", version="0")
cohort = create_cohort(sys.argv[1])
block = np.ones((4, *shape[1:]), np.complex64)
"""
WRITING = """
with cohort.create_volume("sub-01_acq-a_run-1", subject_id="sub-01") as volume:
    dims = ("echo", "slice", "coil", "ky", "kx")
    with volume.writer("kspace", shape=(1, *shape), dtype="complex64", provenance=made, dims=dims) as writer:
        for start in range(0, shape[0], 4):
            block += 1
            writer.append(block)
"""


def test_a_row_that_comes_in_parts_takes_the_memory_of_a_part(tmp_path):
    assert np.prod(ROW) * 8 >= 300 * 2**20
    assert peak_growth(BEFORE, WRITING, [tmp_path / "c", *ROW]) < 120 * 2**20
    assert open_cohort(tmp_path / "c").volumes()[0]["kspace"][0, -1, 0, 0, 0] == 1 + ROW[0] // 4
