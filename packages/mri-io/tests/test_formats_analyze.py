"""Analyze 7.5: pairs without an orientation, compared with nibabel."""

import nibabel
import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items
from mri_io.testing.image_files import image, nibabel_data, read_one, values, volumes, write_analyze
from mri_io.testing.raw_files import NAME, write_cfl


@pytest.mark.parametrize("shape", [(7, 6, 5), (7, 6, 5, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_images_and_series(tmp_path, shape, dtype):
    array = image(shape, dtype)
    header = write_analyze(tmp_path / "a_t1", array)
    items = find_items([tmp_path])
    assert [(item.format, item.path.name, len(item.files)) for item in items] == [("analyze", "a_t1.hdr", 2)]
    _, raw = read_one(header.with_suffix(".img"))
    (element,) = raw.elements
    assert element.dims == (*["frame"] * (len(shape) - 3), "slice", "y", "x")
    np.testing.assert_array_equal(values(element), array.T)
    np.testing.assert_array_equal(element.affine, nibabel.load(header).affine)
    assert "assumed" in element.attributes["orientation"]
    assert raw.header.recon_fov_m == pytest.approx((7 * 1.5e-3, 12e-3, 15e-3))


def test_pairs_of_bart_and_nifti_are_none(tmp_path):
    write_cfl(tmp_path / "a", np.ones((4, 4, 1, 2), np.complex64))
    nibabel.save(nibabel.Nifti1Pair(image(), np.eye(4)), tmp_path / "b.img")
    write_analyze(tmp_path / "c", image())
    assert [(i.path.stem, i.format) for i in find_items([tmp_path])] == [
        ("a", "bart"),
        ("b", "nifti"),
        ("c", "analyze"),
    ]


def test_free_text_is_not_stored(tmp_path):
    write_analyze(tmp_path / "a", image())
    assert not convert([tmp_path / "a.hdr"], tmp_path / "c", progress=False).failures
    assert len(volumes(tmp_path / "c")) == 1
    for file in (tmp_path / "c").rglob("*.json*"):
        assert NAME not in file.read_text()


def test_bad_files_are_refused(tmp_path):
    short = write_analyze(tmp_path / "short", image())
    short.with_suffix(".img").write_bytes(bytes(400))
    lost = write_analyze(tmp_path / "lost", image())
    lost.with_suffix(".img").unlink()
    cut = write_analyze(tmp_path / "cut", image())
    cut.write_bytes(cut.read_bytes()[:100])
    kind = write_analyze(tmp_path / "kind", image())
    head = bytearray(kind.read_bytes())
    head[70:72] = (1234).to_bytes(2, "little")
    kind.write_bytes(head)
    for path, message in (
        (short, r"short\.img: size: expected 840 bytes of data.*got a file of 400 bytes"),
        (lost, r"lost\.img: expected beside lost\.hdr, found no file"),
        (cut, r"cut\.hdr: expected a readable Analyze image"),
        (kind, r"kind\.hdr: expected a readable Analyze image"),
    ):
        with pytest.raises(FormatError, match=message):
            values(read_one(path)[1].elements[0])


def test_a_header_of_another_maker():
    header = nibabel_data("analyze.hdr")
    with pytest.raises(FormatError, match=r"analyze\.img: expected beside analyze\.hdr"):  # it comes without its data
        read_one(header)
