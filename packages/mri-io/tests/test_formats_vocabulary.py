"""Which words of scanners are kept, and that names, ids and dates are none of them."""

import pytest

from mri_io.formats import find_items, get_format
from mri_io.formats.base import identify
from mri_io.formats.vocabulary import known_coil, known_diffusion_scheme, known_model, known_sequence, known_vendor
from mri_io.testing.raw_files import random_kspace, write_fastmri, xml_header

NAMES = ("Doe", "Plantedname", "Lai", "Segre", "Anna-Jones", "ZZPATIENT-4711", "4711", "1950-02-03", "19500203")


@pytest.mark.parametrize(
    "text",
    [
        *("AXT2", "CORPDFS_FBK", "AXT1POST", "AXFLAIR", "T1TFE", "DwiSE", "FEEPI", "gre", "ep2d_diff", "*tse2d1_15"),
        *(
            "gradient echo EPI",
            "TurboSpinEcho",
            "SteadyState",
            "T2*",
            "MP2RAGE",
            "SPGR",
            "PHANTOM",
            "2D MPRAGE",
            "SE_IR",
        ),
    ],
)
def test_names_of_sequences_stay_as_they_are(text):
    assert known_sequence(text) == text


@pytest.mark.parametrize("text", NAMES)
def test_names_of_people_are_no_words_of_scanners(text):
    for known in (known_sequence, known_vendor, known_coil, known_model, known_diffusion_scheme):
        assert known(text) is None
    assert known_sequence(f"AXT2 of {text}") == "AXT2"
    assert known_vendor(f"Siemens {text}") == "SIEMENS"
    assert known_model(f"MAGNETOM Skyra, {text}") == "MAGNETOM_Skyra"
    assert known_coil(f"Head:{text}:H1") == "Head_H1"


def test_who_is_called_as_a_sequence_is():
    assert known_sequence("Space T2", ["SPACE"]) == "T2"
    assert known_sequence("AXFLAIR", ["Lai"]) == "AXFLAIR"


def test_words_of_a_measurements_number_are_no_names(tmp_path):
    xml = xml_header(8, 6).replace("id ZZPATIENT", "AXT2 of ZZPATIENT")
    path = write_fastmri(tmp_path / "a.h5", random_kspace((1, 2, 6, 8)), xml=xml)
    (item,) = find_items([path])
    assert get_format("fastmri").identify(item).acquisition == "AXT2"
    assert get_format("fastmri").read(item).header.sequence == "AXT2"


def test_acquisitions_hold_nothing_of_the_patient(tmp_path):
    def acquisition(text):
        found = identify(tmp_path / "a.h5", "a", text, "ZZ-4711", aliases=("Lai^Plantedname", "1950-02-03"))
        return found.acquisition

    assert acquisition("t1_flair") == "t1flair"  # in which "Lai" is
    assert acquisition("brain of plantedname") == "brainof"
    assert acquisition("ZZ4711") == acquisition("ZZ-4711") == acquisition("Plantedname") == "redacted"
    assert acquisition("knee-19500203-zz4711") == "knee"
