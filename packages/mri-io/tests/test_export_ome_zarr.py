"""OME-Zarr against the rules of its specification 0.5, written here from its text, and as plain zarr reads it."""

import json

import numpy as np
import pytest
import zarr

from mri_io import create_cohort
from mri_io.errors import ConfigError, ElementExistsError, ElementNotFoundError
from mri_io.export import export
from mri_io.export import ome_zarr as module
from mri_io.export.pyramid import circular_mean, halving_factors, local_majority, local_mean
from mri_io.testing import tiny_cohort

AFFINE = np.array([[0, 0, 4.0, 1], [0.5, 0, 0, 2], [0, -0.6, 0, 3], [0, 0, 0, 1]])  # x, y, slice: 0.5, 0.6, 4 mm
STEM = "sub-01_acq-t1_run-1_image-t1"


def check_ome(folder):
    """Check a multiscale image and its labels against the specification; return its ome attributes."""
    attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
    ome = attributes["ome"]
    assert ome["version"] == "0.5"
    for image in ome["multiscales"]:
        check_multiscale(folder, image)
    if "image-label" in ome:
        for key in ("colors", "properties"):
            values = [entry["label-value"] for entry in ome["image-label"][key]]
            assert len(set(values)) == len(values)
            assert all(isinstance(value, int) for value in values)
        assert all(
            len(c["rgba"]) == 4 and 0 <= min(c["rgba"]) <= max(c["rgba"]) <= 255 for c in ome["image-label"]["colors"]
        )
        source = ome["image-label"].get("source", {"image": "."})["image"]
        assert (folder / source / "zarr.json").is_file()
    if (folder / "labels").exists():
        listed = json.loads((folder / "labels" / "zarr.json").read_text())["attributes"]["ome"]
        assert listed["version"] == "0.5"
        assert set(listed["labels"]) == {path.name for path in (folder / "labels").iterdir() if path.is_dir()}
        for name in listed["labels"]:
            label = check_ome(folder / "labels" / name)
            assert "image-label" in label
            assert len(label["multiscales"][0]["datasets"]) == len(ome["multiscales"][0]["datasets"])
            assert zarr.open_array(folder / "labels" / name / "0", mode="r").dtype.kind in "iu"
    return ome


def check_multiscale(folder, image):
    axes = image["axes"]
    names, kinds = [axis["name"] for axis in axes], [axis["type"] for axis in axes]
    assert 2 <= len(axes) <= 5
    assert len(set(names)) == len(names)
    assert kinds.count("space") in (2, 3)
    assert kinds.count("time") <= 1
    assert kinds == sorted(kinds, key=["time", "channel", "space"].index)
    sizes = []
    for dataset in image["datasets"]:
        metadata = json.loads((folder / dataset["path"] / "zarr.json").read_text())
        assert (metadata["zarr_format"], metadata["node_type"]) == (3, "array")
        assert metadata["dimension_names"] == names
        sizes.append(metadata["shape"])
        scale, translation = dataset["coordinateTransformations"]  # exactly one scale, then at most one translation
        assert (scale["type"], translation["type"]) == ("scale", "translation")
        assert len(scale["scale"]) == len(translation["translation"]) == len(axes) == len(metadata["shape"])
        assert min(scale["scale"]) > 0
    assert sizes == sorted(sizes, reverse=True)  # from the highest resolution to the lowest


def test_an_image_with_labels(volume, tmp_path, made, rng):
    array = rng.integers(-100, 100, (5, 23, 18)).astype(np.int16)
    labels = rng.choice([0, 1, 40], array.shape).astype(np.uint16)
    volume.write("image/t1", array, provenance=made, affine=AFFINE)
    volume.write("seg/a", labels, provenance=made, affine=AFFINE, labels={1: "one", 40: {"name": "x", "code": "SCT 1"}})
    volume.write("seg/b", (labels > 0).astype(np.uint8), provenance=made, affine=AFFINE, labels={1: "any"})
    (folder,) = export(volume["image/t1"], tmp_path, "ome-zarr", labels=("seg/a", "seg/b"))
    assert folder == tmp_path / f"{STEM}.ome.zarr"
    (image,) = check_ome(folder)["multiscales"]
    assert image["axes"] == [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    scales = [dataset["coordinateTransformations"][0]["scale"] for dataset in image["datasets"]]
    assert scales == [[4.0, 0.6, 0.5], [4.0, 1.2, 1.0], [4.0, 2.4, 2.0]]  # slices are far thicker than pixels
    shifts = [dataset["coordinateTransformations"][1]["translation"] for dataset in image["datasets"]]
    np.testing.assert_allclose(shifts, [[0, 0, 0], [0, 0.3, 0.25], [0, 0.9, 0.75]])
    group = zarr.open_group(folder, mode="r")
    np.testing.assert_array_equal(group["0"][...], array)
    np.testing.assert_array_equal(group["labels/a/0"][...], labels)
    assert (group["1"].shape, group["2"].shape, group["labels/b/2"].shape) == ((5, 12, 9), (5, 6, 5), (5, 6, 5))
    means = array[:, :22].reshape(5, 11, 2, 9, 2).mean(axis=(2, 4))
    np.testing.assert_array_equal(group["1"][:, :11], np.rint(means))
    np.testing.assert_array_equal(group["1"][:, 11], np.rint(array[:, 22].reshape(5, 9, 2).mean(axis=2)))
    assert group.attrs["mri"]["affine"] == AFFINE.tolist()
    assert group.attrs["mri"]["commit"] == volume["image/t1"].commit
    label = group["labels/a"].attrs["ome"]["image-label"]
    assert label["properties"] == [
        {"label-value": 1, "name": "one"},
        {"label-value": 40, "name": "x", "code": "SCT 1"},
    ]
    assert label["source"] == {"image": "../../"}
    assert set(np.unique(group["labels/a/2"][...])) <= {0, 1, 40}


def test_means_of_isotropic_voxels_are_over_eight(volume, tmp_path, made, rng):
    array = rng.random((8, 16, 12)).astype(np.float32)
    volume.write("image/t1", array, provenance=made, affine=np.diag([2.0, 2, 2, 1]))
    (folder,) = export(volume["image/t1"], tmp_path, "ome-zarr", levels=2)
    group = zarr.open_group(folder, mode="r")
    assert sorted(group.array_keys()) == ["0", "1"]
    expected = array.reshape(4, 2, 8, 2, 6, 2).mean(axis=(1, 3, 5), dtype=np.float64)
    np.testing.assert_allclose(group["1"][...], expected, rtol=1e-6)


def test_a_series_and_larger_than_a_chunk(tmp_path, made, rng, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", {"z": 2, "y": 8, "x": 8})
    cohort = create_cohort(tmp_path / "c")
    array = (rng.random((2, 3, 2, 5, 9, 10)) + 1j).astype(np.complex64)
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        dims = ("set", "frame", "echo", "slice", "y", "x")
        volume.write("recon/x", array, provenance=made, dims=dims, affine=np.diag([1.0, 1, 1, 1]))
        volume.write("recon/echoes", array[0, 0], provenance=made, dims=dims[2:])
    volume = cohort.volumes()[0]
    (folder,) = export(volume["recon/x"], tmp_path, "ome-zarr")
    (image,) = check_ome(folder)["multiscales"]
    assert [(axis["name"], axis["type"]) for axis in image["axes"][:2]] == [("t", "time"), ("c", "channel")]
    found = zarr.open_group(folder, mode="r")
    expected = np.abs(array).transpose(1, 0, 2, 3, 4, 5).reshape(3, 4, 5, 9, 10)
    np.testing.assert_allclose(found["0"][...], expected, rtol=1e-6)
    half = expected[:, :, :4, :8].reshape(3, 4, 2, 2, 4, 2, 5, 2).mean(axis=(3, 5, 7))
    np.testing.assert_allclose(found["1"][:, :, :2, :4], half, rtol=1e-5)
    assert found.attrs["mri"]["series"] == {"set": 2, "frame": 3, "echo": 2}
    (folder,) = export(volume["recon/echoes"], tmp_path, "ome-zarr", part="phase")
    (image,) = check_ome(folder)["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "z", "y", "x"]
    assert "unit" not in image["axes"][-1]  # no affine is known
    assert (folder.name, image["type"]) == ("sub-1_acq-x_run-1_recon-echoes_phase.ome.zarr", "circular mean")


def test_a_label_map_alone(tmp_path):
    element = tiny_cohort(tmp_path / "c", subjects=1, slices=3, coils=2, matrix=(10, 8)).volumes()[0]["seg/tissue"]
    (folder,) = export(element, tmp_path, "ome-zarr")
    label = check_ome(folder)["image-label"]
    assert [entry["name"] for entry in label["properties"]] == ["outer", "inner"]
    assert "source" not in label
    np.testing.assert_array_equal(zarr.open_array(folder / "0", mode="r")[...], element.numpy())


def test_what_cannot_be_written_is_refused(volume, tmp_path, made):
    volume.write("image/t1", np.ones((3, 7, 5), np.float32), provenance=made, affine=AFFINE)
    volume.write("image/t2", np.ones((3, 6, 5), np.float32), provenance=made, affine=AFFINE)
    volume.write("seg/other", np.ones((3, 6, 5), np.uint8), provenance=made, affine=AFFINE, labels={1: "x"})
    cases = [
        (
            {"labels": ("seg/other",)},
            ConfigError,
            r"grid: expected \(3, 7, 5\) of image/t1, got \(3, 6, 5\) of seg/other",
        ),
        ({"labels": ("image/t2",)}, ConfigError, "expected a label map seg/<name>, got image/t2"),
        ({"labels": ("seg/none",)}, ElementNotFoundError, "there is no element 'seg/none'"),
        ({"channels": ("image/t2",)}, ConfigError, "options of ome-zarr: expected labels, levels, part, got channels"),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            export(volume["image/t1"], tmp_path / "out", "ome-zarr", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(volume, tmp_path, made, monkeypatch):
    volume.write("image/t1", np.ones((3, 7, 5), np.float32), provenance=made, affine=AFFINE)
    out = tmp_path / "out"
    (folder,) = export(volume["image/t1"], out, "ome-zarr")
    (folder / "mine").touch()
    with pytest.raises(ElementExistsError, match=r"ome\.zarr: exists already\. To overwrite it: --replace"):
        export(volume["image/t1"], out, "ome-zarr")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_coarser", stop)
        with pytest.raises(KeyboardInterrupt):
            export(volume["image/t1"], out, "ome-zarr", replace=True)
    assert list(out.iterdir()) == [folder]
    assert (folder / "mine").exists()
    export(volume["image/t1"], out, "ome-zarr", replace=True)
    assert list(out.iterdir()) == [folder]
    assert not (folder / "mine").exists()


def test_reductions():
    assert halving_factors((1, 64, 64), (0.1, 1, 1)) == (1, 2, 2)  # a single slice cannot be halved
    assert halving_factors((64, 64, 64), (1, 1, 1.9)) == (2, 2, 2)
    assert halving_factors((1, 1, 1), (1, 1, 1)) == (1, 1, 1)
    values = np.array([[1, np.nan, np.nan], [3, 4, np.nan]], np.float32)
    np.testing.assert_allclose(local_mean(values, (2, 2)), [[8 / 3, np.nan]], rtol=1e-6)
    phases = np.array([np.pi - 0.1, -np.pi + 0.3])
    np.testing.assert_allclose(np.mod(circular_mean(phases, (2,)), 2 * np.pi), [np.pi + 0.1])
    labels = np.array([[5, 5, 0, 2], [9, 1, 2, 0]], np.uint8)
    np.testing.assert_array_equal(local_majority(labels, (2, 2)), [[5, 0]])
