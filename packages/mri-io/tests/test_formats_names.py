"""Names of nobody: files whose patient was taken out are subjects of their own, in every format that names one."""

import numpy as np
import pytest

from mri_io.formats import find_items, get_format
from mri_io.formats.base import identify
from mri_io.testing.dicom_files import uid, write_series
from mri_io.testing.ismrmrd_files import acquisitions_of, write_scan
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace, write_fastmri, xml_header

NOBODY = ("xxxxxxxx", "XXXX^XXXX", "anonymous", "Anon", "0", "000000", "unknown", "", "N/A", "Anonymized^Patient")
SOMEBODY = ("ZZPATIENT-4711", "anon-17", "subject 3", "Xu^Na", "0001", "Noname^Li", "a0")


def header(patient, name):
    return xml_header(8, 6).replace(PATIENT, patient).replace(NAME, name)


def write(path, kind, patient, name=""):
    kspace = random_kspace((1, 2, 6, 8))
    if kind == "dicom":
        tags = {"PatientID": patient, "PatientName": name, "StudyInstanceUID": uid(path.stem)}
        options = {"series": path.stem, "prefix": path.stem, "tags": tags}
        return write_series(path.parent, np.ones((3, 4, 5), np.uint16), np.eye(4), **options)[0]
    if kind == "ismrmrd":
        return write_scan(path, acquisitions_of(kspace, ("slice",)), header(patient, name))
    if kind == "fastmri attribute":
        return write_fastmri(path, kspace, patient=patient, xml=header("xxx", "xxx"))
    return write_fastmri(path, kspace, xml=header(patient, name))


def identity(path):
    (item,) = find_items([path])
    return get_format(item.format).identify(item)


@pytest.mark.parametrize("kind", ["ismrmrd", "fastmri header", "fastmri attribute", "dicom"])
def test_files_of_nobody_are_subjects_of_their_own(tmp_path, kind):
    ending = "dcm" if kind == "dicom" else "h5"
    for patient in NOBODY:
        found = [identity(write(tmp_path / f"{name}.{ending}", kind, patient)) for name in "ab"]
        assert found[0].subject != found[1].subject, patient
        assert {one.patient for one in found} == {None}
    for patient in SOMEBODY:
        found = [identity(write(tmp_path / f"{name}.{ending}", kind, patient)) for name in "ab"]
        assert found[0].subject == found[1].subject, patient
        assert {one.patient for one in found} == {patient}


@pytest.mark.parametrize("kind", ["ismrmrd", "fastmri header", "dicom"])
def test_a_name_counts_where_the_id_is_nobodys(tmp_path, kind):
    ending = "dcm" if kind == "dicom" else "h5"
    found = [identity(write(tmp_path / f"{name}.{ending}", kind, "anonymous", NAME)) for name in "ab"]
    assert found[0].subject == found[1].subject
    assert {one.patient for one in found} == {NAME}


def test_what_is_nobodys_is_not_searched_for(tmp_path):
    found = identify(tmp_path / "a.h5", "a", "t2", "anonymous", aliases=("0", "Unknown", NAME), whole=("n/a", "X-ward"))
    assert found.patient is None
    assert {alias.lower() for alias in found.aliases} == {NAME.lower(), "doe", "plantedname", "x-ward"}
