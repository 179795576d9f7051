"""The SKM-TEA layout: k-space, maps and target belong together, tissues on their grid, the set's split, refusals."""

import json

import h5py
import nibabel
import numpy as np
import pytest

from mri_io import open_cohort, verify
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import find_items, find_sources, get_format
from mri_io.formats.skm_tea.reader import TISSUES
from mri_io.testing.hdf5_files import skm_tea_scan, write_skm_tea
from mri_io.testing.peak_memory import peak_growth
from mri_io.testing.raw_files import write_nifti

MATRIX, ACQUIRED = (6, 24, 16), (18, 8)


def row(name, subject, **more):
    return {
        "id": 1,
        "file_name": f"{name}.h5",
        "scan_id": name,
        "subject_id": subject,
        "timepoint": 0,
        "voxel_spacing": [0.3125, 0.3125, 0.8],
        "matrix_shape": list(MATRIX),
        "orientation": ["SI", "AP", "LR"],
        "num_echoes": 2,
        **more,
    }


SUBJECTS = {"MTR_005": 99, "MTR_010": 99, "MTR_013": 48, "MTR_020": 7}


@pytest.fixture
def root(tmp_path):
    """The data set with two scans of one subject in training, and what else its folder holds."""
    names = iter(SUBJECTS.items())
    rows = [row(name, subject, timepoint=int(name == "MTR_010")) for name, subject in names]
    parts = {"train": rows[:2], "val": rows[2:3], "test": rows[3:]}
    scans = {name: skm_tea_scan(MATRIX, ACQUIRED, seed=10 * n) for n, name in enumerate(SUBJECTS)}
    root = write_skm_tea(tmp_path / "v1-release", scans, parts)
    other = root / "segmentation_masks" / "dicom-track"
    other.mkdir()
    write_nifti(other / "MTR_005.nii.gz", np.full(MATRIX, 5, np.uint8))
    (root / "image_files").mkdir()
    with h5py.File(root / "image_files" / "MTR_005.h5", "w") as file:
        file["echo1"] = np.zeros(MATRIX)
    (root / "all_metadata.csv").write_text("MTR_ID,PatientAge\n005,50\n")
    return root


def centred_image(kspace):
    moved = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(moved, norm="ortho"), axes=(-2, -1))


def volumes(root, cohort):
    summary = convert([root], cohort, progress=False)
    assert summary.failures == []
    assert verify(open_cohort(cohort)).ok
    return {volume.source.uri: volume for volume in open_cohort(cohort).volumes()}, summary


def test_the_data_set_arrives_with_its_splits(tmp_path, root):
    found, summary = volumes(root, tmp_path / "c")
    assert summary.notes == []
    assert sorted(found) == [f"{name}.h5" for name in SUBJECTS]
    split = open_cohort(tmp_path / "c").split("skm-tea")
    subjects = {name: found[f"{name}.h5"].subject_id for name in SUBJECTS}
    assert split.train == (subjects["MTR_005"],) == (subjects["MTR_010"],)
    assert (split.val, split.test) == ((subjects["MTR_013"],), (subjects["MTR_020"],))
    assert found["MTR_005.h5"].id == f"{subjects['MTR_005']}_ses-0_acq-qdess_run-1"
    assert found["MTR_010.h5"].id == f"{subjects['MTR_005']}_ses-1_acq-qdess_run-1"
    assert volumes(root / "files_recon_calib-24", tmp_path / "d")[0].keys() == found.keys()
    assert open_cohort(tmp_path / "d").split("skm-tea") == split


def test_target_is_what_the_maps_combine_of_the_stored_kspace(tmp_path, root):
    """The axes of all three are right only if this holds, which it does in the data set itself."""
    found, _ = volumes(root, tmp_path / "c")
    volume = found["MTR_013.h5"]
    assert volume["kspace"].dims == ("echo", "slice", "coil", "ky", "kx")
    assert volume["kspace"].shape == (2, 6, 3, 24, 16)
    assert volume["sens/jsense"].shape == (6, 1, 3, 24, 16)
    combined = (volume["sens/jsense"].numpy()[:, 0].conj() * centred_image(volume["kspace"].numpy())).sum(axis=2)
    np.testing.assert_allclose(volume["recon/target"].numpy(), combined, atol=1e-5)
    with h5py.File(root / "files_recon_calib-24" / "MTR_013.h5") as file:
        np.testing.assert_array_equal(volume["kspace"][1, 2, 0, 5, 7], file["kspace"][2, 5, 7, 1, 0])
        np.testing.assert_array_equal(volume["recon/target"][1, 2, 5, 7], file["target"][2, 5, 7, 1, 0])


def test_masks_lie_in_the_middle_of_the_zero_filled_matrix(tmp_path, root):
    volume = volumes(root, tmp_path / "c")[0]["MTR_005.h5"]
    stored = skm_tea_scan(MATRIX, ACQUIRED)["masks/poisson_4.0x"]
    mask = volume["mask/poisson-4x"]
    assert mask.dims == ("ky", "kx")
    np.testing.assert_array_equal(mask.numpy(), np.pad(stored, ((3, 3), (4, 4))))
    assert mask.attributes["matrix"] == [18, 8]
    assert mask.attributes["acceleration"] == stored.size / stored.sum()
    assert "mask/poisson-6x" in volume
    acquired = volume["mask/acquired"].numpy()
    np.testing.assert_array_equal(acquired, np.pad(np.ones(ACQUIRED, int), ((3, 3), (4, 4))))
    header = volume.header
    assert (header.encoded_matrix, header.recon_matrix) == ((8, 18, 6), (16, 24, 6))
    assert (header.padding_left, header.padding_right) == (4, 12)
    assert header.recon_fov_m == pytest.approx((16 * 0.8e-3, 24 * 0.3125e-3, 6 * 0.3125e-3))


def test_tissues_on_the_grid_of_the_target_with_the_affine_of_nifti(tmp_path, root):
    volume = volumes(root, tmp_path / "c")[0]["MTR_005.h5"]
    image = nibabel.load(root / "segmentation_masks" / "raw-data-track" / "MTR_005.nii.gz")
    tissues = volume["seg/tissues"]
    np.testing.assert_array_equal(tissues.numpy(), np.asarray(image.dataobj))
    assert {int(key): value["name"] for key, value in tissues.labels.items()} == dict(TISSUES)
    for element in (tissues, volume["recon/target"]):
        # Voxel (x, y, slice) of the store is (k, j, i) of the file.
        for i, j, k in ((0, 0, 0), (5, 1, 2), (2, 23, 15)):
            np.testing.assert_allclose(
                (element.affine @ (k, j, i, 1))[:3], nibabel.affines.apply_affine(image.affine, (i, j, k))
            )
        assert nibabel.aff2axcodes(element.affine) == ("R", "P", "I")
        assert element.attributes["affine_from"] == "label map"


AFFINES = {
    "agrees": (
        np.array([[0, 0, -0.8, 9], [0, -0.3125, 0, 7], [-0.3125, 0, 0, 8], [0, 0, 0, 1.0]]),
        "label map",
        (9, 7, 8),
    ),
    "other axes": (np.diag([0.3125, 0.3125, 0.8, 1]), "annotations, without place", (0, 0, 0)),
    "other size": (
        np.array([[0, 0, -1, 9], [0, -1, 0, 7], [-1, 0, 0, 8], [0, 0, 0, 1.0]]),
        "annotations, without place",
        (0, 0, 0),
    ),
}


@pytest.mark.parametrize("case", AFFINES)
def test_annotations_say_how_the_axes_lie(tmp_path, case):
    affine, source, place = AFFINES[case]
    rows = [row("MTR_112", 92, orientation=["SI", "AP", "RL"])]
    root = write_skm_tea(tmp_path / "s", {"MTR_112": skm_tea_scan(MATRIX, ACQUIRED)}, {"val": rows}, affine=affine)
    volume = volumes(root, tmp_path / "c")[0]["MTR_112.h5"]
    for element in (volume["seg/tissues"], volume["recon/target"]):
        assert nibabel.aff2axcodes(element.affine) == ("L", "P", "I")
        np.testing.assert_allclose(np.linalg.norm(element.affine[:3, :3], axis=0), [0.8, 0.3125, 0.3125])
        np.testing.assert_allclose(element.affine[:3, 3], place)
        assert element.attributes["affine_from"] == source


def test_a_file_alone_and_a_set_without_annotations(tmp_path, root):
    alone = tmp_path / "MTR_005.h5"
    alone.write_bytes((root / "files_recon_calib-24" / "MTR_005.h5").read_bytes())
    (volume,) = volumes(alone, tmp_path / "c")[0].values()
    assert "seg/tissues" not in volume
    assert volume["recon/target"].affine is None
    assert list((tmp_path / "c" / "splits").glob("*.json")) == []
    for file in (root / "annotations").rglob("*.json"):
        file.unlink()
    found, _ = volumes(root, tmp_path / "d")
    assert len({volume.subject_id for volume in found.values()}) == 4
    assert found["MTR_005.h5"]["recon/target"].attributes["affine_from"] == "label map"
    assert list((tmp_path / "d" / "splits").glob("*.json")) == []


def test_what_else_lies_in_the_folder_is_left_alone(root):
    found = find_sources([root])
    assert [item.format for item in found.items] == ["skm-tea"] * 4
    assert found.passed_over == []
    assert all("dicom-track" not in str(file) for item in found.items for file in item.files)


def test_the_newest_annotations_count(tmp_path, root):
    write_skm_tea(root, {}, {"train": [row(name, 1) for name in SUBJECTS]}, version="v0.0.2")
    write_skm_tea(root, {}, {"test": [row(name, n) for n, name in enumerate(SUBJECTS)]}, version="v1.10.0")
    volumes(root, tmp_path / "c")
    split = open_cohort(tmp_path / "c").split("skm-tea")
    assert (len(split.train), len(split.test)) == (0, 4)


def test_several_map_sets(tmp_path):
    scan = skm_tea_scan(MATRIX, ACQUIRED, maps=2)
    volume = volumes(write_skm_tea(tmp_path / "s", {"MTR_001": scan}), tmp_path / "c")[0]["MTR_001.h5"]
    assert volume["sens/jsense"].shape == (6, 2, 3, 24, 16)
    np.testing.assert_array_equal(volume["recon/target"].numpy(), scan["target"][..., 0].transpose(3, 0, 1, 2))
    assert (volume["recon/target"].attributes["map"], volume["recon/target"].attributes["maps_in_file"]) == (0, 2)


@pytest.mark.parametrize("chunks", [(1, 24, 16, 1, 1), (4, 8, 8, 2, 1)])
def test_chunks_of_one_echo_or_of_both(tmp_path, chunks):
    scan = skm_tea_scan(MATRIX, ACQUIRED)
    root = write_skm_tea(tmp_path / "s", {"MTR_001": scan}, chunks=chunks, compression="gzip")
    volume = volumes(root, tmp_path / "c")[0]["MTR_001.h5"]
    np.testing.assert_array_equal(volume["kspace"].numpy(), scan["kspace"].transpose(3, 0, 4, 1, 2))


def test_no_number_of_the_subject_in_the_cohort(tmp_path):
    rows = {"train": [row("MTR_001", 987654321)]}
    root = write_skm_tea(tmp_path / "s", {"MTR_001": skm_tea_scan(MATRIX, ACQUIRED)}, rows)
    volumes(root, tmp_path / "c")
    content = b"".join(str(file).encode() + file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file())
    assert b"987654321" not in content


def changed(**arrays):
    def make(root):
        write_skm_tea(root, {"MTR_001": {**skm_tea_scan(MATRIX, ACQUIRED), **arrays}})

    return make


def shape_of(name, *shape, dtype=np.complex64):
    return changed(**{name: np.ones(shape, dtype)})


def damaged(part, change):
    def make(root):
        changed()(root)
        (path,) = (root / part).rglob("MTR_001.*")
        path.write_bytes(change(path.read_bytes()))

    return make


def unwritten(root):
    changed()(root)
    with h5py.File(root / "files_recon_calib-24" / "MTR_001.h5", "a") as file:
        del file["kspace"]
        file.create_dataset("kspace", (512, 512, 160, 2, 16), "c8")


REFUSED = {
    "maps of other coils": (
        shape_of("maps", *MATRIX, 4, 1),
        r"kspace, maps, target: expected complex \(x, ky, kz, ech",
    ),
    "a target of one echo": (
        shape_of("target", *MATRIX, 1, 1),
        r"kspace, maps, target: expected complex .*\(6, 24, 16, 1, 1",
    ),
    "a real target": (shape_of("target", *MATRIX, 2, 1, dtype=np.float32), r"got .*float32 \(6, 24, 16, 2, 1\)"),
    "a mask that is too large": (
        changed(**{"masks/poisson_8.0x": np.ones((25, 8))}),
        r"masks/poisson_8.0x: expected \(ky, k",
    ),
    "a mask of lines": (
        changed(**{"masks/lines": np.ones(8)}),
        r"masks/lines: expected \(ky, kz\), at most \(24, 16\), got \(8",
    ),
    "only zeros": (changed(kspace=np.zeros((*MATRIX, 2, 3), np.complex64)), "kspace: expected signal, got zeros"),
    "tissues of another grid": (
        changed(tissues=np.zeros((24, 6, 16), np.uint8)),
        r"MTR_001\.nii\.gz: label grid: expected \(x, y, z\) \(6, 24, 16\), got \(24, 6, 16\)",
    ),
    "a tissue too many": (changed(tissues=np.full(MATRIX, 7, np.uint8)), "labels: expected whole numbers from 0 to 6"),
    "half a tissue": (changed(tissues=np.full(MATRIX, 0.5, np.float32)), "labels: expected whole numbers from 0 to 6"),
    "a truncated file": (damaged("files_recon_calib-24", lambda b: b[:9000]), "expected a readable HDF5 file"),
    "truncated tissues": (
        damaged("segmentation_masks", lambda b: b[:-500]),
        "label map: expected a readable NIfTI image",
    ),
    "no NIfTI": (damaged("segmentation_masks", lambda b: b"x" * 400), "label map: expected a readable NIfTI image"),
    "nothing written": (unwritten, r"kspace: expected \d+ bytes of data, got 0 bytes"),
}


def read_all(item):
    for element in get_format("skm-tea").read(item).elements:
        list(element.blocks())


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    make, message = REFUSED[case]
    make(tmp_path / "s")
    (item,) = find_items([tmp_path / "s"])
    with pytest.raises(FormatError, match=message):
        read_all(item)
    (failure,) = convert([tmp_path / "s"], tmp_path / "c", progress=False).failures
    assert "MTR_001" in failure.error
    assert len(open_cohort(tmp_path / "c")) == 0


BAD_ANNOTATIONS = {
    "no JSON": ("{", "JSONDecodeError"),
    "a list": ("[]", "TypeError"),
    "no images": ("{}", "KeyError"),
    "no subject": (json.dumps({"images": [{"scan_id": "MTR_005"}]}), "KeyError"),
    "no direction": (json.dumps({"images": [row("MTR_005", 1, orientation=["SI", "AP", "up"])]}), "KeyError"),
    "one axis twice": (json.dumps({"images": [row("MTR_005", 1, orientation=["SI", "IS", "LR"])]}), "orientation"),
    "two axes": (json.dumps({"images": [row("MTR_005", 1, orientation=["SI", "LR"])]}), "orientation"),
    "no size": (json.dumps({"images": [row("MTR_005", 1, voxel_spacing=[0, 1, 1])]}), "voxel_spacing"),
    "in two parts": (json.dumps({"images": [row("MTR_005", 99)]}), "expected every scan in one part, got MTR_005 in"),
}


@pytest.mark.parametrize("case", BAD_ANNOTATIONS)
def test_bad_annotations_are_named_for_every_scan(tmp_path, root, case):
    text, message = BAD_ANNOTATIONS[case]
    (root / "annotations" / "v1.0.0" / "test.json").write_text(text)
    failures = convert([root], tmp_path / "c", progress=False).failures
    assert len(failures) == 4
    for failure in failures:
        assert "test.json" in failure.error
        assert message in failure.error


def test_memory_stays_below_what_is_claimed(tmp_path):
    scan = skm_tea_scan((1, 128, 160), (104, 80), coils=8)
    repeated = {key: np.repeat(array, 96, axis=0) if array.ndim != 2 else array for key, array in scan.items()}
    root = write_skm_tea(tmp_path / "s", {"MTR_001": repeated})
    del scan, repeated
    (item,) = find_items([root])
    claimed = get_format("skm-tea").memory(item)
    imports = "from mri_io.convert import convert\nimport mri_io.formats.skm_tea.reader, mri_io.store.volume"
    work = "assert convert([sys.argv[1]], sys.argv[2], progress=False).ok"
    used = peak_growth(imports, work, [root, tmp_path / "c"])
    assert used < claimed < 600 * 2**20
