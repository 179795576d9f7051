"""OCMR: frames, sampling as the names say, asymmetric echoes, pilot tones."""

import re

import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.testing.ismrmrd_files import acquisitions_of, scan_header, write_scan
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace

FRAMES, LINES, COLUMNS = 4, 9, 12
UNDER = (np.arange(LINES) + np.arange(FRAMES)[:, None, None]) % 3 == 0


def cine(path, *, sampled=None, counter="phase", samples=COLUMNS, anonymous=True, head=None, **header):
    kspace = random_kspace((FRAMES, 1, 2, LINES, samples))
    made = acquisitions_of(kspace, (counter, "slice"), sampled=sampled, **(head or {}))
    xml = scan_header((COLUMNS, LINES, 1), sequence="TrueFisp", te_ms=(1.4,), **header)
    if anonymous:
        xml = re.sub(r"<subjectInformation>.*?</subjectInformation>", "", xml, flags=re.DOTALL)
    return kspace, write_scan(path, made, xml)


def read(path):
    (item,) = find_items([path])
    assert item.format == "ocmr"
    raw = get_format("ocmr").read(item)
    return raw, {e.path: (np.concatenate([b.ravel() for b in e.blocks()]).reshape(e.shape), e) for e in raw.elements}


def test_phases_are_frames(tmp_path):
    kspace, path = cine(tmp_path / "fs_0001_1_5T.h5")
    raw, elements = read(path)
    stored, element = elements["kspace"]
    np.testing.assert_array_equal(stored, kspace)
    assert element.dims == ("frame", "slice", "coil", "ky", "kx")
    assert "mask/acquired" not in elements
    assert raw.attributes["frame_step_s"] == pytest.approx(0.5)  # the header's TR
    assert raw.header.tr_s is None
    assert raw.header.te_s == pytest.approx((0.0014,))


def test_undersampled_frames_have_masks_of_their_own(tmp_path):
    kspace, path = cine(tmp_path / "us_0165_pt_1_5T.h5", sampled=UNDER, counter="repetition")
    _, elements = read(path)
    mask, element = elements["mask/acquired"]
    assert element.dims == ("frame", "ky")
    np.testing.assert_array_equal(mask, UNDER[:, 0])
    np.testing.assert_array_equal(elements["kspace"][0], kspace * UNDER[:, :, None, :, None])


def test_asymmetric_echoes_lie_at_the_end_of_the_readout(tmp_path):
    # As the set's own reader pads them: in front.
    kspace, path = cine(tmp_path / "fs_0002_1_5T.h5", samples=9, head={"center_sample": 3})
    stored, _ = read(path)[1]["kspace"]
    np.testing.assert_array_equal(stored[..., 3:], kspace)
    assert not stored[..., :3].any()


def test_samples_that_a_pilot_tone_spoils_are_discarded(tmp_path):
    kspace, path = cine(tmp_path / "us_0165_pt_1_5T.h5", sampled=UNDER, user={"PilotTone": 1})
    _, elements = read(path)
    stored, element = elements["kspace"]
    expected = (kspace * UNDER[:, :, None, :, None]).copy()
    expected[..., [0, 1, 2, -1]] = 0
    np.testing.assert_array_equal(stored, expected)
    assert element.attributes["pilot_tone"] is True
    assert elements["mask/acquired"][1].dims == ("frame", "ky", "kx")


def test_subjects_are_the_patients_of_headers_or_the_numbers_of_files(tmp_path):
    _, path = cine(tmp_path / "fs_0001_1_5T.h5")
    assert get_format("ocmr").identify(find_items([path])[0]).subject == "sub-ocmr0001"
    _, path = cine(tmp_path / "fs_0003_1_5T.h5", anonymous=False)
    assert convert([path], tmp_path / "cohort", progress=False).ok
    (name,) = open_cohort(tmp_path / "cohort").volume_ids()
    assert re.fullmatch(r"sub-[0-9a-f]{12}_acq-TrueFisp_run-1", name)
    for file in (tmp_path / "cohort").rglob("*.json*"):
        assert not {word for word in (NAME, PATIENT, "Planted") if word in file.read_text()}, file


BAD = {
    "fs_0001_1_5T": ({"sampled": UNDER}, r"lines of OCMR: expected all between .* \(fs_\), got 33%"),
    "us_0001_1_5T": ({}, r"lines of OCMR: expected some of them in each frame \(us_\), got 100%"),
    "fs_0004_3T": (
        {"counter": "set"},
        r"k-space of OCMR: expected frames \(phases or repetitions\), got set 4, slice 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_names_do_not_say_is_refused(tmp_path, name):
    change, message = BAD[name]
    _, path = cine(tmp_path / f"{name}.h5", **change)
    with pytest.raises(FormatError, match=rf"{name}\.h5: {message}.*--format ismrmrd"):
        read(path)


def test_files_of_other_names_are_left_to_the_general_reader(tmp_path):
    _, path = cine(tmp_path / "cine.h5")
    assert find_items([path])[0].format == "ismrmrd"
