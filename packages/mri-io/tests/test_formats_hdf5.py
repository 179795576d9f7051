"""HDF5 files: by what readers tell theirs from those of others, asked once of each file."""

import os

import h5py
import numpy as np
import pytest

from mri_io.formats import find_items, get_format
from mri_io.formats.hdf5 import hdf5_layout, hdf5_outline
from mri_io.testing.raw_files import random_kspace, write_fastmri, write_ismrmrd, xml_header

SHAPE = (2, 2, 8, 6)


@pytest.fixture
def opened(monkeypatch):
    """The names of files that the library has opened."""
    names, real = [], h5py.File.__init__

    def init(self, name, *args, **options):
        if not isinstance(name, h5py.h5f.FileID):  # a view of one that is open
            names.append(os.fspath(name))
        real(self, name, *args, **options)

    monkeypatch.setattr(h5py.File, "__init__", init)
    return names


def test_a_file_is_opened_once_to_find_its_reader(tmp_path, opened):
    paths = [write_fastmri(tmp_path / f"sub-{number}.h5", random_kspace(SHAPE)) for number in range(3)]
    opened.clear()
    assert {item.format for item in find_items([tmp_path])} == {"fastmri"}
    assert sorted(opened) == [str(path) for path in paths]


def test_a_file_that_changed_is_looked_at_again(tmp_path):
    path = write_fastmri(tmp_path / "a.h5", random_kspace(SHAPE))
    assert hdf5_layout(path) == "fastmri"
    with h5py.File(path, "a") as file:
        del file["kspace"], file["ismrmrd_header"]
        file["kspace"] = np.zeros((2, 8, 6, 4), np.float32)
    assert hdf5_layout(path) == "cc359"
    path.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    assert hdf5_layout(path) == "hdf5"
    assert hdf5_outline(path).groups == {}
    path.write_text("text")
    assert hdf5_layout(path) is None


def test_the_outline(tmp_path):
    path = write_ismrmrd(tmp_path / "a.h5", [(random_kspace((2, 8)), {}, ())], xml_header(8, 6))
    with h5py.File(path, "a") as file:
        file.create_group("empty")
        file["scan/image_0/data"] = 1
        file["scan/more/image_1/data"] = 1
        file["nothing"] = h5py.Empty(np.float32)
        file["values"] = np.zeros((3, 4), np.int16)
        file["lost"] = h5py.SoftLink("/nowhere")
        h5py.h5d.create(file.id, b"odd", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((2,)))
    outline = hdf5_outline(path)
    assert outline.arrays == {"nothing": (0, "f"), "values": (2, "i"), "odd": (1, "")}
    assert outline.groups["empty"] == {}
    assert outline.groups["scan"] == {"image_0": {"data"}, "more": {"image_1"}}
    assert {"xml", "data"} <= outline.groups["dataset"].keys()
    assert hdf5_layout(path) == "ismrmrd"
    assert get_format("ismrmrd").sniff(path)
