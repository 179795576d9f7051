"""Stanford fully sampled knees: 3-D k-space, alternating signs, what is not of the set."""

import numpy as np
import pytest

from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.formats.stanford_knees import StanfordKneesFormat
from mri_io.testing.ismrmrd_files import acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import PATIENT, random_kspace

MATRIX = (10, 8, 6)
KNEE = {"vendor": "GE MEDICAL SYSTEMS", "channels": 8, "sequence": "", "field_mm": (160, 160, 153.6)}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """Files of 1.7 GB are too large for tests."""
    assert StanfordKneesFormat.matrix == (320, 320, 256)
    monkeypatch.setattr(StanfordKneesFormat, "matrix", MATRIX)


def knee(tmp_path, *, sampled=None, coils=8, counter="kspace_encode_step_2", **header):
    kspace = random_kspace((MATRIX[2], coils, *MATRIX[1::-1]))
    made = acquisitions_of(kspace, (counter,), sampled=sampled)
    return kspace, write_scan(tmp_path / "52c2fd53.h5", made, scan_header(MATRIX, **{**KNEE, **header}))


def read(path):
    (item,) = find_items([path])
    raw = get_format(item.format).read(item)
    return item, {e.path: (np.concatenate(list(e.blocks())), e) for e in raw.elements}


def test_partitions_are_kz(tmp_path):
    kspace, path = knee(tmp_path)
    item, elements = read(path)
    assert item.format == "stanford-knees"
    stored, element = elements["kspace"]
    np.testing.assert_array_equal(stored, kspace)
    assert element.dims == ("kz", "coil", "ky", "kx")
    assert "signs_alternated" not in element.attributes
    identity = get_format("stanford-knees").identify(item)
    assert identity.acquisition == "stanfordknees"
    assert PATIENT not in identity.subject


@pytest.mark.parametrize(
    ("user", "axes"),
    [({"ChopY": 0, "ChopZ": 1}, ["ky"]), ({"ChopY": 0, "ChopZ": 0}, ["ky", "kz"]), ({"ChopY": 1, "ChopZ": 1}, None)],
)
def test_signs_that_the_scanner_did_not_alternate(tmp_path, user, axes):
    kspace, path = knee(tmp_path, user=user)
    stored, element = read(path)[1]["kspace"]
    signs = np.ones((MATRIX[2], 1, MATRIX[1], 1))
    for axis in axes or []:
        shape = (1, 1, -1, 1) if axis == "ky" else (-1, 1, 1, 1)
        signs = signs * (-1.0) ** np.arange(MATRIX[1 if axis == "ky" else 2]).reshape(shape)
    np.testing.assert_array_equal(stored, kspace * signs)
    assert element.attributes.get("signs_alternated") == axes


def test_corners_need_not_be_sampled(tmp_path):
    sampled = np.ones((MATRIX[2], MATRIX[1]), bool)
    sampled[[0, 0, -1, -1], [0, -1, 0, -1]] = False
    _, path = knee(tmp_path, sampled=sampled)
    mask, element = read(path)[1]["mask/acquired"]
    assert element.dims == ("kz", "ky", "kx")
    np.testing.assert_array_equal(mask[..., 0], sampled)


@pytest.mark.parametrize("change", [{"vendor": "SIEMENS"}, {"channels": 16}])
def test_other_scans_are_left_to_the_general_reader(tmp_path, change):
    _, path = knee(tmp_path, **change)
    assert find_items([path])[0].format == "ismrmrd"


BAD = {
    "coils": ({"coils": 4, "channels": None}, r"expected kz 6, coil 8, ky 8, kx 10, got kz 6, coil 4, ky 8, kx 10"),
    "slices": ({"counter": "slice"}, r"expected kz 6, coil 8, ky 8, kx 10, got slice 6, coil 8, ky 8, kx 10"),
    "undersampled": (
        {"sampled": np.arange(48).reshape(6, 8) % 2 == 0},
        r"fully sampled: expected at least 75%, got 50%",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_of_the_set_is_refused(tmp_path, case):
    change, message = BAD[case]
    _, path = knee(tmp_path, **change)
    with pytest.raises(FormatError, match=rf"52c2fd53\.h5: .*{message}.*--format ismrmrd"):
        read(path)
