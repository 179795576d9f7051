"""PAR/REC: real headers of nibabel's tests, with pixels of noise, compared with what nibabel reads."""

import nibabel
import numpy as np
import pytest

from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, get_format
from mri_io.testing.image_files import nibabel_data, read_one, values, volumes, write_parrec
from mri_io.testing.raw_files import NAME

HEADERS = {
    "T1.PAR": {"": ()},
    "Phantom_EPI_3mm_cor_20APtrans_15RLrot_SENSE_15_1.PAR": {"": ()},
    "Phantom_EPI_3mm_sag_15RL_SENSE_11_1.PAR": {"": ()},
    "T2_-interleaved.PAR": {"": ("frame",)},
    "phantom_varscale.PAR": {"": ("frame",)},
    "ASL_3D_Multiecho.PAR": {"": ("set", "frame", "echo")},
    "DTI.PAR": {"": ("set",)},
    "DTIv40.PAR": {"": ("set",)},
    "fieldmap.PAR": {"": (), "-phase": ()},
    "T1_3echo_mag_real_imag_phase.PAR": dict.fromkeys(("", "-real", "-imaginary", "-phase"), ("echo",)),
}


def written(folder, name, **options):
    folder.mkdir(exist_ok=True)
    return write_parrec(folder, nibabel_data(name), **options)


@pytest.mark.parametrize("name", HEADERS)
def test_values_series_and_affines(tmp_path, name):
    path = written(tmp_path / "in", name)
    _, raw = read_one(path.with_suffix(".REC"))
    assert {e.path.removeprefix(e.path.partition("-")[0]): e.dims[:-3] for e in raw.elements} == HEADERS[name]
    original = nibabel.parrec.load(path, strict_sort=True)
    labels, full = original.header.get_volume_labels(), original.get_fdata()
    original.dataobj.file_like.close()
    full = full.reshape(*full.shape[:3], -1)
    types = np.asarray(labels.get("image_type_mr", [0] * full.shape[3]))
    for element, kind in zip(raw.elements, sorted(set(types.tolist())), strict=True):
        found = values(element).reshape(-1, *element.shape[-3:])
        members = np.flatnonzero(types == kind)
        if element.dims[:-3] == ("set", "frame", "echo"):  # nibabel's order: dynamics, labels, echoes
            members = members.reshape(2, 2, 3).swapaxes(0, 1).ravel()
        np.testing.assert_array_equal(found, full[..., members].T.astype(np.float32))
        np.testing.assert_array_equal(element.affine, original.affine)
        assert element.attributes["scaling"].startswith("dv")


def test_facts_in_si_units(tmp_path):
    _, raw = read_one(written(tmp_path / "in", "T1_3echo_mag_real_imag_phase.PAR"))
    header = raw.header
    assert header.te_s == pytest.approx((0.00178, 0.00359, 0.0054), abs=2e-3)
    assert len(header.te_s) == 3
    assert header.tr_s == pytest.approx((0.006746,))
    assert (header.vendor, header.sequence, header.recon_matrix) == ("Philips", "T1TFE", (80, 80, 30))
    assert header.recon_fov_m == pytest.approx((0.224, 0.224, 0.09))


def test_patients_are_pseudonyms(tmp_path):
    header = nibabel_data("T1.PAR").read_text()
    line = next(line for line in header.splitlines() if "Patient name" in line)
    first, second = (
        written(tmp_path / folder, "T1.PAR", replacements={line: f".    Patient name   :   {NAME}"}) for folder in "ab"
    )
    reader = get_format("parrec")
    one, two = (reader.identify(find_items([path])[0]) for path in (first, second))
    assert one.subject == two.subject  # one patient, in two folders
    assert one.patient == NAME
    assert not convert([first], tmp_path / "c", progress=False).failures
    assert len(volumes(tmp_path / "c")) == 1
    for file in (tmp_path / "c").rglob("*.json*"):
        assert NAME not in file.read_text()


def test_bad_files_are_refused(tmp_path):
    lost = written(tmp_path / "lost", "T1.PAR")
    lost.with_suffix(".REC").unlink()
    short = written(tmp_path / "short", "T1.PAR")
    short.with_suffix(".REC").write_bytes(bytes(1000))
    cut = written(tmp_path / "cut", "T1.PAR")
    cut.write_text(cut.read_text()[: 2 * len(cut.read_text()) // 3])
    empty = tmp_path / "empty.PAR"
    empty.write_text("# === DATA DESCRIPTION FILE ======\n")
    cases = [
        (lost, r"T1\.REC: expected beside T1\.PAR, found no file"),
        (short, r"T1\.REC: size: expected 128000 bytes of data.* got a file of 1000 bytes"),
        (cut, r"T1\.PAR: expected a readable PAR"),
        (empty, r"empty\.PAR: expected a readable PAR header"),
        (written(tmp_path / "planes", "NA.PAR"), "Varying slice orientation"),
        (written(tmp_path / "part", "phantom_truncated.PAR"), "Found 3 dynamic scan values, but expected 4"),
    ]
    for path, message in cases:
        with pytest.raises(FormatError, match=message):
            read_one(path)


@pytest.mark.realdata
def test_a_real_phantom_and_a_header_alone(real_data, tmp_path):
    summary = convert([real_data / "formats"], tmp_path / "c", progress=False)
    (failure,) = summary.failures
    assert "T1_3echo_mag_real_imag_phase.REC: expected beside" in failure.error
    (volume,) = volumes(tmp_path / "c")
    original = nibabel.parrec.load(real_data / "formats" / "phantom_EPI_asc_CLEAR_2_1.PAR", strict_sort=True)
    expected = original.get_fdata().T.astype(np.float32)
    original.dataobj.file_like.close()
    element = volume["image/image"]
    assert element.dims == ("frame", "slice", "y", "x")
    np.testing.assert_array_equal(np.asarray(element[...]), expected)
    np.testing.assert_array_equal(element.affine, original.affine)
    assert volume.header.tr_s == (2.0,)
