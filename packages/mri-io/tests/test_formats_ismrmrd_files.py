"""ISMRMRD: bounded memory whatever the size of a file, and files that are damaged or claim too much."""

import h5py
import ismrmrd
import numpy as np
import pytest

from mri_io.errors import FormatError, MriError
from mri_io.formats import find_items, get_format
from mri_io.formats.base import SourceItem
from mri_io.testing.ismrmrd_files import acquisitions_of, scan_header, write_large_scan, write_scan
from mri_io.testing.peak_memory import peak_growth
from mri_io.testing.raw_files import random_kspace

READ = """
from mri_io.formats import find_items, get_format
def read(path):
    (item,) = find_items([path])
    for element in get_format("ismrmrd").read(item).elements:
        for _ in element.blocks():
            pass
"""


def test_memory_is_that_of_some_planes(tmp_path):
    """Of a scan of 192 MB, whose lines run through all partitions one after the other, a part is in memory."""
    matrix, coils, echoes = (128, 96, 64), 16, 2
    tiny = write_large_scan(tmp_path / "sub-tiny_x.h5", (8, 4, 2), 2)
    path = write_large_scan(tmp_path / "sub-large_x.h5", matrix, coils, echoes=echoes)
    size = path.stat().st_size
    assert size > 190e6
    (item,) = find_items([path])
    reader = get_format("ismrmrd")
    # A tiny scan first: what is imported counts for nothing.
    used = peak_growth(f"{READ}\nread(sys.argv[2])", "read(sys.argv[1])", [path, tiny])
    count = sum(block.nbytes for element in reader.read(item).elements for block in element.blocks())
    assert count == 8 * np.prod(matrix) * coils * echoes
    assert used < 80e6
    assert used < reader.memory(item) < 3 * size
    (kspace,) = reader.read(item).elements
    assert kspace.shape == (echoes, matrix[2], coils, matrix[1], matrix[0])
    lines = 1 + np.arange(matrix[1])
    for number, block in enumerate(kspace.blocks()):
        echo, partition = divmod(number, matrix[2])
        if number == 0:
            first = block[:, :, :1]
        if number % 37 == 0:
            factor = (lines + 1000 * partition + 1_000_000 * echo).astype(np.float32)
            np.testing.assert_allclose(block, first * factor[:, None], rtol=1e-6)


def read(path, group="dataset"):
    raw = get_format("ismrmrd").read(SourceItem("ismrmrd", path, (path,), path.name, {"group": group}))
    for element in raw.elements:
        for _ in element.blocks():
            pass


@pytest.fixture
def scan(tmp_path):
    return write_scan(
        tmp_path / "a.h5", acquisitions_of(random_kspace((2, 2, 8, 16)), ("slice",)), scan_header((16, 8, 1))
    )


def change_heads(path, number, **values):
    """Change fields of one acquisition's head."""
    with h5py.File(path, "r+") as file:
        record = file["dataset/data"][number]
        for name, value in values.items():
            record["head"][name] = value
        file["dataset/data"][number] = record


def test_truncated_files_are_refused(scan):
    content = scan.read_bytes()
    for part in np.linspace(0.02, 0.98, 13):
        scan.write_bytes(content[: int(part * len(content))])
        with pytest.raises(FormatError, match=r"a\.h5"):
            read(scan)


def test_flipped_bytes_give_an_error_of_ours_or_data(scan, rng):
    content = scan.read_bytes()
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 12):
            damaged[place] ^= 1 << int(rng.integers(8))
        scan.write_bytes(bytes(damaged))
        try:
            read(scan)
            outcomes.add("read")
        except MriError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_heads_that_claim_more_than_the_file_holds_are_refused_before_reading(scan):
    change_heads(scan, 3, number_of_samples=65535, active_channels=65535)
    with pytest.raises(FormatError, match=r"a\.h5: size: expected at least the 343.* bytes .*, got [0-9]+ bytes"):
        read(scan)


def test_data_that_contradict_their_heads_are_refused(scan):
    with h5py.File(scan, "r+") as file:
        record = file["dataset/data"][5]
        record["data"] = record["data"][:-4]
        file["dataset/data"][5] = record
    with pytest.raises(
        FormatError, match=r"a\.h5: data of acquisition 5: expected 64 numbers, as its head states, got 60"
    ):
        read(scan)


def test_counters_that_claim_a_large_scan_take_no_memory(scan):
    # Two acquired slices far apart are two slices.
    change_heads(scan, 0, idx=np.zeros((), ismrmrd.hdf5.encoding_counters_dtype))
    with h5py.File(scan, "r+") as file:
        records = file["dataset/data"][:]
        for record in records:
            record["head"]["idx"]["slice"] *= 65535
        file["dataset/data"][:] = records
    read(scan)


LAYOUTS = {
    "no acquisitions": (lambda file: file["dataset"].create_group("data"), "dataset/data: expected acquisitions"),
    "numbers": (
        lambda file: file["dataset"].create_dataset("data", data=np.zeros(4)),
        "dataset/data: expected acquisitions",
    ),
    "heads of nothing": (
        lambda file: file["dataset"].create_dataset(
            "data",
            (2,),
            dtype=[
                ("head", [("version", "<u2")]),
                *((n, h5py.special_dtype(vlen=np.float32)) for n in ("traj", "data")),
            ],
        ),
        "head of dataset/data: expected flags",
    ),
    "no header": (lambda file: file["dataset"].pop("xml"), "dataset/xml: expected one XML header, got none"),
    "another header": (lambda file: _header(file, b"<html/>"), "xml: expected an ISMRMRD header with an encoding"),
}


def _header(file, text):
    file["dataset/xml"][0] = text


@pytest.mark.parametrize("case", LAYOUTS)
def test_other_layouts_are_refused(scan, case):
    change, message = LAYOUTS[case]
    with h5py.File(scan, "r+") as file:
        if case not in ("no header", "another header"):
            del file["dataset/data"]
        change(file)
    with pytest.raises(FormatError, match=rf"a\.h5: {message}"):
        read(scan)


def test_elements_of_newer_headers_are_passed_over(scan):
    with h5py.File(scan, "r+") as file:
        text = file["dataset/xml"][0].decode()
        file["dataset/xml"][0] = text.replace("<encoding>", "<newSection><a>1</a></newSection><encoding>", 1).encode()
    (item,) = find_items([scan])
    assert get_format("ismrmrd").read(item).header.encoded_matrix == (16, 8, 1)


@pytest.mark.parametrize("layout", ["packed", "two dimensions", "contiguous", "chunks of several"])
def test_lists_of_acquisitions_in_other_layouts_of_hdf5(scan, layout):
    options = {
        "packed": {"chunks": (4,), "compression": "gzip"},
        "two dimensions": {"chunks": (1, 1)},
        "contiguous": {},
        "chunks of several": {"chunks": (5,)},
    }[layout]
    (item,) = find_items([scan])
    (expected,) = [np.concatenate(list(e.blocks())) for e in get_format("ismrmrd").read(item).elements]
    with h5py.File(scan, "r+") as file:
        records = file["dataset/data"][:]
        if layout == "two dimensions":
            records = records[:, None]
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=records, dtype=ismrmrd.hdf5.acquisition_dtype, **options)
    (element,) = get_format("ismrmrd").read(item).elements
    np.testing.assert_array_equal(np.concatenate(list(element.blocks())), expected)


@pytest.mark.parametrize(
    ("old", "new"), [("<y>8</y>", "<y>eight</y>"), ("<center>4", "<center>c"), ("encodedSpace", "otherSpace")]
)
def test_headers_with_what_is_no_number_are_refused(scan, old, new):
    with h5py.File(scan, "r+") as file:
        text = file["dataset/xml"][0].decode()
        assert old in text
        file["dataset/xml"][0] = text.replace(old, new).encode()
    with pytest.raises(FormatError, match=r"a\.h5: xml: expected an ISMRMRD header with an encoding"):
        read(scan)
