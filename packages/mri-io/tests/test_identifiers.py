"""No reader lets a patient into the store: names, ids and birth dates in all text that each format can carry."""

import gzip
import json
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import h5py
import ismrmrd
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
from PIL import Image, PngImagePlugin

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import MriError
from mri_io.export import export, exporter_names
from mri_io.formats import ReadOptions, find_items, format_names
from mri_io.formats.stanford_knees import StanfordKneesFormat
from mri_io.store.index import build_index
from mri_io.testing import dicom_files, hdf5_files, image_files, image_sets, raw_files, twix_files
from mri_io.testing.ismrmrd_files import acquisitions_of, append_images, scan_header, write_scan
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace

BIRTH = ("1950-02-03", "19500203")
TEXT = f"{NAME} {PATIENT} {' '.join(BIRTH)} Planted Hospital"
PLANTED = ("plantedname", "doe^", "zzpatient", "zzplanted", "planted hospital", *BIRTH)
"""What must not be found, in lower case."""
AXIAL = np.diag([1.5, 2.0, 3.0, 1.0])
WORD = "Plantedname"
PERSONAL = {
    "PatientName": NAME,
    "PatientID": PATIENT,
    "PatientBirthDate": BIRTH[0],
    "InstitutionName": "Planted Hospital",
    "SeriesDescription": f"{WORD} T1",
    "ProtocolName": TEXT,
    "SequenceName": WORD,
    "PulseSequenceDetails": TEXT,
    "Manufacturer": f"Siemens {WORD}",
    "PulseSequenceType": f"gradient echo of {WORD}",
    "EchoTime": 0.003,
    "Unknown": {"deep": [TEXT]},
}


def xml_with(xml):
    """Plant in the text of an ISMRMRD header that describes the scan."""
    coil = f"<coilLabel><coilNumber>0</coilNumber><coilName>Head of {TEXT}</coilName></coilLabel>"
    for old, new in {
        "</systemVendor>": f" {TEXT}</systemVendor><systemModel>Skyra {TEXT}</systemModel>",
        "</sequence_type>": f" {TEXT}</sequence_type>",
        "</sequenceParameters>": f"<diffusionScheme>{TEXT}</diffusionScheme><note>{TEXT}</note></sequenceParameters>",
        "<institutionName>": f"{coil}<institutionName>",
    }.items():
        for prefix in ("", "ns0:"):
            named = old.replace("</", f"</{prefix}") if "</" in old else old.replace("<", f"<{prefix}", 1)
            xml = xml.replace(named, new.replace("</", f"</{prefix}").replace("<", f"<{prefix}") if prefix else new)
    return xml.replace("<ns0:/ns0:", "</ns0:")


def plant_hdf5(path):
    """Add attributes to all objects of a file, and a text beside them."""
    with h5py.File(path, "a") as file:
        objects = [file]
        file.visititems(lambda name, found: objects.append(found))
        for found in objects:
            found.attrs["patient"], found.attrs["note"] = TEXT, TEXT
        file["comment"] = TEXT
    return path


def plant_nifti(folder):
    """Plant in the headers of all NIfTI files below a folder, with extensions, and put a sidecar beside each."""
    for path in sorted(folder.rglob("*.nii*")):
        if path.name[0] == ".":
            continue
        stored = nibabel.load(path)
        image = nibabel.Nifti1Image(np.array(stored.dataobj), stored.affine, stored.header)
        for field, size in (("descrip", 79), ("aux_file", 23), ("db_name", 17), ("intent_name", 15)):
            image.header[field] = TEXT[4:].encode()[:size]
        for code in ("comment", "dicom", "afni"):
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, TEXT.encode()))
        nibabel.save(image, path)
        path.with_name(path.name.partition(".nii")[0] + ".json").write_text(json.dumps(PERSONAL))


def fastmri(folder):
    xml = xml_with(raw_files.xml_header(8, 6))
    for name, acquisition in (("a", WORD), (WORD, f"AXT2 {TEXT}"), ("b", PATIENT.replace("-", ""))):
        path = folder / f"{name}.h5"
        plant_hdf5(raw_files.write_fastmri(path, random_kspace((2, 2, 8, 6)), acquisition=acquisition, xml=xml))


def cc359(folder):
    plant_hdf5(hdf5_files.write_cc359(folder / f"{WORD}.h5", hdf5_files.coil_images((3, 12, 10), 2)))


def skm_tea(folder):
    scan = hdf5_files.skm_tea_scan((4, 12, 8), (10, 6))
    scan[f"masks/{WORD}"] = scan["masks/poisson_4.0x"]
    row = {"file_name": "MTR_005.h5", "scan_id": "MTR_005", "subject_id": 9, "timepoint": 0, **PERSONAL}
    row |= {"voxel_spacing": [0.3, 0.3, 0.8], "matrix_shape": [4, 12, 8], "orientation": ["SI", "AP", "LR"]}
    root = hdf5_files.write_skm_tea(folder / "v1-release", {"MTR_005": scan}, {"train": [{**row, "num_echoes": 2}]})
    plant_hdf5(root / "files_recon_calib-24" / "MTR_005.h5")
    plant_nifti(root)


def scan_of(path, shape=(2, 2, 6, 8), counters=("slice",), **header):
    matrix = header.pop("matrix", (shape[-1], shape[-2], 1))
    xml = xml_with(scan_header(matrix, **header))
    return write_scan(path, acquisitions_of(random_kspace(shape), counters), xml, group="dataset")


def ismrmrd_scan(folder):
    plant_hdf5(scan_of(folder / f"{WORD}.h5"))
    write_scan(folder / "two.h5", acquisitions_of(random_kspace((2, 2, 6, 8)), ("slice",)), "<a/>", group="other")
    with h5py.File(folder / "two.h5", "a") as file:
        file.move("other", f"scan of {WORD}")
        file[f"scan of {WORD}/xml"][0] = xml_with(scan_header((8, 6, 1)))


def ismrmrd_images(folder):
    path = scan_of(folder / "a.h5", (1, 2, 6, 8))
    for name in ("image_0", f"image {WORD}"):
        image = ismrmrd.Image.from_array(random_kspace((6, 8)).real, transpose=False)
        image.field_of_view, image.meta = (200.0, 200.0, 5.0), {"PatientName": TEXT, "ImageComment": TEXT}
        append_images(path, [image], name=name)


def stanford_knees(folder):
    shape = (6, 8, 8, 10)
    knee = {"vendor": "GE MEDICAL SYSTEMS", "channels": 8, "field_mm": (160, 160, 153)}
    plant_hdf5(scan_of(folder / f"{WORD}.h5", shape, ("kspace_encode_step_2",), matrix=(10, 8, 6), **knee))


def ocmr(folder):
    plant_hdf5(scan_of(folder / "fs_0001_1_5T.h5", (4, 1, 2, 9, 12), ("phase", "slice"), sequence=f"TrueFisp {WORD}"))


def ahead(folder):
    for number in range(1, 5):
        path = folder / f"mp2rageme_001_inv2_te{number}.h5"
        plant_hdf5(scan_of(path, (6, 3, 8, 10), ("kspace_encode_step_2",), matrix=(10, 8, 6), channels=3))
    for number in range(1, 5):
        for kind in ("mag", "phase"):
            stem = f"{WORD}_mp2rageme_echo-{number}_part-{kind}"
            image_sets.save(folder / "images" / f"{stem}.nii.gz", np.abs(image_files.image()))
    plant_nifti(folder)


def twix(folder):
    yaps = {"sKSpace.lBaseResolution": 8, "sKSpace.lPhaseEncodingLines": 6}
    for number, name in enumerate((f"%CustomerSeq%\\{WORD}_tse", f"{PATIENT}", f"gre_{BIRTH[1]}")):
        lines = twix_files.kspace_readouts(random_kspace((2, 6, 16)))
        more = {"tSequenceFileName": f'"{name}"', "tFree": f'"{TEXT}"', "sCoil.tName": f'"{TEXT}"'}
        twix_files.write_twix(folder / f"{WORD}{number}.dat", twix_files.TwixScan(lines, {**yaps, **more}))


def bart(folder):
    raw_files.write_cfl(folder / WORD, random_kspace((8, 6, 1, 2)))
    header = folder / f"{WORD}.hdr"
    header.write_text(f"{header.read_text()}# Command\nfft {TEXT}\n# Files\n >{TEXT}\n# Creator\n{TEXT}\n")


def arrays_npy(folder):
    np.save(folder / f"{WORD}.npy", random_kspace((2, 8, 6)))


def arrays_mat5(folder):
    path, others = folder / f"{WORD}.mat", {"PatientName": TEXT, "info": {"id": PATIENT}}
    scipy.io.savemat(path, {"kspace": random_kspace((2, 8, 6)), **others})
    content = bytearray(path.read_bytes())
    content[:116] = f"MATLAB 5.0 MAT-file by {TEXT}".encode()[:116].ljust(116)
    path.write_bytes(content)


def arrays_mat73(folder):
    path, array = folder / f"{WORD}.mat", random_kspace((6, 8, 2))
    pairs = np.empty(array.shape, [("real", "f4"), ("imag", "f4")])
    pairs["real"], pairs["imag"] = array.real, array.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        file["kspace"] = pairs
        file["kspace"].attrs["MATLAB_class"] = np.bytes_("single")
        file["PatientName"] = np.frombuffer(TEXT.encode(), np.uint8).astype(np.uint16)
        file["PatientName"].attrs["MATLAB_class"] = np.bytes_("char")
    plant_hdf5(path)
    with path.open("r+b") as raw:
        raw.write(f"MATLAB 7.3 MAT-file, by {TEXT}".encode()[:116].ljust(124) + struct.pack("<HH", 0x0200, 0x4D49))


_VALUES = {
    "PN": NAME,
    "LO": TEXT[:64],
    "SH": WORD,
    "LT": TEXT,
    "ST": TEXT,
    "UT": TEXT,
    "UC": TEXT,
    "AE": WORD,
    "CS": WORD.upper(),
}
_MORE = [
    *("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "ImageComments", "FrameComments"),
    *("DerivationDescription", "ReceiveCoilName", "TransmitCoilName", "ContentLabel", "ContentDescription"),
    *("ContentCreatorName", "TextComments", "ContrastBolusAgent", "Manufacturer"),
]


def plant_dicom(paths):
    """Plant in further elements, private ones and sequences of DICOM files."""
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword in _MORE:
            setattr(dataset, keyword, _VALUES[pydicom.datadict.dictionary_VR(keyword)])
        item = pydicom.Dataset()
        item.CodeMeaning, item.CodeValue = TEXT[:64], WORD
        dataset.ProcedureCodeSequence = [item]
        dataset.private_block(0x0011, f"{WORD}", create=True).add_new(1, "LT", TEXT)
        dataset.save_as(path)


def dicom_classic(folder):
    array = np.arange(3 * 8 * 8, dtype=np.int16).reshape(3, 8, 8)
    plant_dicom(dicom_files.write_series(folder / WORD, array, AXIAL, prefix=WORD))


def dicom_enhanced(folder):
    array = np.arange(2 * 3 * 8 * 8, dtype=np.int16).reshape(1, 2, 3, 8, 8)
    plant_dicom([dicom_files.write_enhanced(folder / f"{WORD}.dcm", array, AXIAL, echo_times=(10.0, 20.0))])


def dicom_seg(folder):
    files = dicom_files.write_series(folder, np.ones((3, 8, 8), np.int16), AXIAL)
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[1, 2:4, 2:4] = 1
    plant_dicom([dicom_files.write_seg(folder / "seg.dcm", labels, files, {1: f"{PATIENT} lesion"})])


def nifti(folder):
    raw_files.write_nifti(folder / f"{WORD}_T1w.nii.gz", image_files.image(), image_files.AFFINES["oblique"])
    image_sets.save(folder / f"{WORD}_T1w_seg.nii.gz", image_files.box())
    raw_files.write_nifti(folder / "b.nii", image_files.image(seed=1))
    plant_nifti(folder)


def nrrd(folder):
    pytest.importorskip("nrrd")
    more = {"DWMRI_note": TEXT, "measurement frame note": TEXT}
    path = image_files.write_nrrd(folder / f"{WORD}.nrrd", image_files.image(), image_files.AFFINES["oblique"], **more)
    head, empty, data = path.read_bytes().partition(b"\n\n")
    path.write_bytes(head + f"\n# {TEXT}".encode() + empty + data)


def metaimage(folder):
    pytest.importorskip("SimpleITK")
    path = image_files.write_metaimage(folder / f"{WORD}.mha", image_files.image(), image_files.AFFINES["oblique"])
    head, key, data = path.read_bytes().partition(b"ElementDataFile")
    fields = f"Comment = {TEXT}\nPatientName = {NAME}\nName = {WORD}\nAcquisitionDate = {BIRTH[1]}\n"
    path.write_bytes(head + fields.encode() + key + data)


def analyze(folder):
    path = image_files.write_analyze(folder / WORD, image_files.image(dtype=np.int16))
    content = bytearray(path.read_bytes())
    # Fields of Analyze 7.5: data_type, db_name, descrip, aux_file, generated, scannum, patient_id, exp_date.
    for start, size in ((4, 10), (14, 18), (148, 80), (228, 24), (263, 10), (273, 10), (283, 10), (293, 10)):
        content[start : start + size] = TEXT[4:].encode()[:size].ljust(size, b"\0")
    path.write_bytes(content)


def parrec(folder):
    path = image_files.write_parrec(folder, image_files.nibabel_data("T1.PAR"))
    values = {"Patient name": NAME, "Examination name": TEXT, "Protocol name": TEXT, "Technique": f"T1TFE {WORD}"}
    values |= {"Examination date/time": f"{BIRTH[0]} / 10:11:12"}
    lines = path.read_text(encoding="latin-1").splitlines()
    for number, line in enumerate(lines):
        key = next((key for key in values if line.startswith(".") and key in line), None)
        if key is not None:
            lines[number] = f"{line.partition(':')[0]}:   {values[key]}"
        elif line.startswith("# Dataset name"):
            lines[number] = f"{line} {TEXT}"
    path.write_text("\n".join(lines) + "\n", encoding="latin-1")
    for file in (path, path.with_suffix(".REC")):
        file.rename(folder / f"{WORD}{file.suffix}")


def nnunet(folder):
    root = image_sets.write_nnunet(folder / WORD, (f"{WORD}_001",), (f"{WORD}_002",))
    described = json.loads((root / "dataset.json").read_text())
    described |= {"name": WORD, "description": TEXT, "reference": TEXT, "licence": TEXT, **PERSONAL}
    (root / "dataset.json").write_text(json.dumps(described))
    plant_nifti(root)


def prostate158(folder):
    root = image_sets.write_prostate158(folder / WORD)
    for table in root.glob("*.csv"):
        lines = table.read_text().splitlines()
        table.write_text("\n".join([f"{lines[0]},note", *(f"{line},{TEXT}" for line in lines[1:])]) + "\n")
    plant_nifti(root)


def brats(folder):
    plant_nifti(image_sets.write_brats(folder, [WORD]))
    (folder / WORD / "survival.csv").write_text(TEXT)


def isles(folder):
    root = image_sets.write_isles(folder / WORD)
    (root / "participants.tsv").write_text(TEXT)
    plant_nifti(root)


def nifti_pairs(folder):
    for kind, array in (("images", image_files.image()), ("labels", image_files.box())):
        image_sets.save(folder / WORD / kind / f"{WORD}.nii.gz", array)
    plant_nifti(folder)


def png_pairs(folder):
    raw_files.write_png_pairs(folder, [f"{WORD}-1"])
    for kind in ("Images", "Labels"):
        for file in sorted((folder / kind).rglob("*.png")):
            file.rename(file.with_name(file.name.replace(".dcm.png", f"-{WORD}.png")))
    for file in folder.rglob("*.png"):
        image, texts, exif = Image.open(file), PngImagePlugin.PngInfo(), Image.Exif()
        image.load()
        texts.add_text("Patient", TEXT)
        texts.add_text("Comment", TEXT, zip=True)
        texts.add_itxt("Title", TEXT)
        exif[0x010E], exif[0x013B] = TEXT, NAME
        image.save(file, pnginfo=texts, exif=exif)


KSPACE = ReadOptions(axes=("coil", "ky", "kx"), variable="kspace")
ARRAYS = {arrays_npy: ReadOptions(axes=("coil", "ky", "kx")), arrays_mat5: KSPACE, arrays_mat73: KSPACE}
CASES = {
    "fastmri": (fastmri,),
    "cc359": (cc359,),
    "skm-tea": (skm_tea,),
    "ismrmrd": (ismrmrd_scan, ismrmrd_images),
    "stanford-knees": (stanford_knees,),
    "ocmr": (ocmr,),
    "ahead": (ahead,),
    "twix": (twix,),
    "bart": (bart,),
    "arrays": (arrays_npy, arrays_mat5, arrays_mat73),
    "dicom": (dicom_classic, dicom_enhanced, dicom_seg),
    "nifti": (nifti,),
    "nrrd": (nrrd,),
    "metaimage": (metaimage,),
    "analyze": (analyze,),
    "parrec": (parrec,),
    "nnunet": (nnunet,),
    "prostate158": (prostate158,),
    "brats": (brats,),
    "isles": (isles,),
    "nifti-pairs": (nifti_pairs,),
    "png-pairs": (png_pairs,),
}
"""What writes sources of each reader."""
ALL = [(name, write) for name, writers in CASES.items() for write in writers]


def found_in(folder):
    """Return where a planted text is, in names, in bytes, and in bytes that are unpacked."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        texts = [str(path.relative_to(folder)).encode(), content]
        texts += [gzip.decompress(content)] if content[:2] == b"\x1f\x8b" else []
        texts += [repr(json.loads(content)).encode()] if path.suffix == ".json" else []  # with escapes undone
        if path.name.endswith("failures.jsonl"):
            texts += [repr(json.loads(line)).encode() for line in content.splitlines()]
        found += [(str(path), one) for one in PLANTED if any(one.encode() in text.lower() for text in texts)]
    return found


def stored_text(cohort):
    """Return all that the store tells of a cohort, as it reads it."""
    opened = open_cohort(cohort)
    told = [repr(build_index(opened)), repr(opened.failures())]
    for volume in opened.volumes():
        elements = volume.elements()
        told += [volume.id, repr(dict(volume.attributes)), repr(volume.header), repr(list(elements))]
        told += [repr(dict(element.attributes)) for element in elements.values()]
    return "\n".join(told).lower()


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(StanfordKneesFormat, "matrix", (10, 8, 6))


def test_all_readers_are_looked_at():
    assert set(CASES) == set(format_names()) - {"hdf5"}  # which reads nothing


@pytest.mark.parametrize(("name", "write"), ALL, ids=[write.__name__ for _, write in ALL])
def test_nothing_that_is_planted_reaches_the_cohort(tmp_path, name, write):
    source, cohort = tmp_path / "in", tmp_path / "c"
    source.mkdir()
    write(source)
    options = ARRAYS.get(write)
    assert {item.format for item in find_items([source], choices=options)} == {name}
    summary = convert([source], cohort, options=options, progress=False)
    assert summary.ok, summary
    assert summary.count("done") > 0
    assert found_in(cohort) == []
    told = stored_text(cohort)
    assert [one for one in PLANTED if one in told] == []


@pytest.mark.realdata
def test_nothing_that_is_planted_in_mosaics_reaches_the_cohort(real_data, tmp_path):
    (tmp_path / "in").mkdir()
    files = [
        Path(shutil.copyfile(file, tmp_path / "in" / f"{WORD}_{file.name}"))
        for file in sorted((real_data / "dicom" / "siemens_epi" / "mr_0003").glob("*.dcm"))
    ]
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, PATIENT, BIRTH[1]
        dataset.save_as(file)
    plant_dicom(files)
    assert convert([tmp_path / "in"], tmp_path / "c", progress=False).ok
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert volume.source.format == "dicom"
    assert found_in(tmp_path / "c") == []
    told = stored_text(tmp_path / "c")
    assert [one for one in PLANTED if one in told] == []


def bad_fastmri(folder):
    raw_files.write_fastmri(folder / f"{WORD}.h5", random_kspace((2, 2, 8, 6)), mask=np.ones(3))


def bad_ismrmrd(folder):
    scan_of(folder / f"{WORD}.h5", matrix=(8, 3, 1))


def bad_twix(folder):
    twix_files.write_twix(folder / f"{WORD}_{PATIENT}.dat", twix_files.TwixScan([]))


def bad_dicom(folder):
    array = np.zeros((5, 8, 8), np.int16)
    plant_dicom(dicom_files.write_series(folder / WORD, array, AXIAL, skip=(2,), prefix=PATIENT))


def bad_parrec(folder):
    parrec(folder)
    (folder / f"{WORD}.REC").write_bytes(bytes(1000))


@pytest.mark.parametrize("write", [bad_fastmri, bad_ismrmrd, bad_twix, bad_dicom, bad_parrec])
def test_nothing_that_a_file_tells_of_the_patient_reaches_the_failures(tmp_path, write):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    summary = convert([tmp_path / "in"], tmp_path / "c", progress=False)
    assert len(summary.failures) == len(open_cohort(tmp_path / "c").failures()) == 1
    assert found_in(tmp_path / "c") == []
    told = stored_text(tmp_path / "c")
    assert [one for one in PLANTED if one in told] == []


@pytest.mark.parametrize("write", [fastmri, ismrmrd_images, ocmr, dicom_seg, nifti, parrec])
def test_nothing_that_is_planted_comes_out_again(tmp_path, write):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    assert convert([tmp_path / "in"], tmp_path / "c", progress=False).ok
    written = set()
    for element in open_cohort(tmp_path / "c").volumes()[0].elements().values():
        for name in exporter_names():
            with suppress(MriError):  # a format that does not hold such an element
                if export(element, tmp_path / "out" / name / element.name, name):
                    written.add(name)
    assert len(written) > 1
    assert found_in(tmp_path / "out") == []
