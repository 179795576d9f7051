"""Folders of image and mask PNGs: a volume per patient, frames in order, masks to label ids."""

import numpy as np
import pytest
from PIL import Image

from mri_io.convert import convert
from mri_io.errors import FormatError, ShapeError
from mri_io.export import export
from mri_io.formats import find_items, get_format
from mri_io.store import open_cohort
from mri_io.testing.image_files import volumes
from mri_io.testing.raw_files import write_png_pairs


def read(item):
    raw = get_format("png-pairs").read(item)
    return {e.path: (next(e.blocks()), e) for e in raw.elements}, raw


def test_exported_pngs_come_back_equal(volume, tmp_path, made, rng):
    array = rng.integers(0, 256, (3, 7, 5)).astype(np.int16)
    array[:, 0], array[:, 1] = 0, 255  # the window is that of eight bits, from the 0.5th to the 99.5th percentile
    labels = rng.choice([0, 2, 5], array.shape).astype(np.uint8)
    volume.write("image/cine", array, provenance=made)
    volume.write("seg/a", labels, provenance=made, labels={2: "two", 5: "five"})
    for path, folder in (("image/cine", "images"), ("seg/a", "labels")):
        for number, file in enumerate(export(volume[path], tmp_path / "in" / folder, "png")):
            file.rename(file.with_name(f"{volume.id}_{number:03d}.png"))
    (item,) = find_items([tmp_path / "in"])
    arrays, _ = read(item)
    np.testing.assert_array_equal(arrays["image/cine"][0], array)
    np.testing.assert_array_equal(arrays["seg/mask"][0], labels)


def test_a_volume_per_patient(tmp_path):
    items = find_items([write_png_pairs(tmp_path / "cine")])
    assert [item.format for item in items] == ["png-pairs"] * 2
    for item, patient in zip(items, ("SC-PLANTED-1", "SC-PLANTED-2"), strict=True):
        arrays, raw = read(item)
        for kind, path in (("Images", "image/cine"), ("Labels", "seg/mask")):
            files = sorted((tmp_path / "cine" / kind / "Part1").glob(f"{patient}-*.png"))
            expected = np.stack([np.asarray(Image.open(file)) for file in files])
            np.testing.assert_array_equal(arrays[path][0], expected if kind == "Images" else expected == 255)
        assert arrays["seg/mask"][1].labels == {1: "structure"}
        assert arrays["image/cine"][1].dtype == np.int16
        assert "PLANTED" not in str(raw)
        assert "PLANTED" not in get_format("png-pairs").identify(item).subject


def test_label_ids_are_kept(tmp_path):
    folder = write_png_pairs(tmp_path / "a", ["P1"])
    for file in (folder / "Labels").rglob("*.png"):
        Image.fromarray(np.tile(np.array([0, 1, 3], np.uint8), (10, 4))).save(file)
    arrays, _ = read(find_items([folder])[0])
    labels, element = arrays["seg/mask"]
    assert np.unique(labels).tolist() == [0, 1, 3]
    assert element.labels == {1: "label 1", 3: "label 3"}


def test_palette_masks_give_indices(tmp_path):
    folder = write_png_pairs(tmp_path / "a", ["P1"])
    for file in (folder / "Labels").rglob("*.png"):
        image = Image.fromarray(np.tile(np.array([0, 1, 2], np.uint8), (10, 4))).convert("P")
        image.putdata(np.tile([0, 1, 2], 40).tolist())
        image.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
        image.save(file)
    assert np.unique(read(find_items([folder])[0])[0]["seg/mask"][0]).tolist() == [0, 1, 2]


def rename(folder, **names):
    for old, new in names.items():
        (folder / old).rename(folder / new)
    return folder


@pytest.mark.parametrize("names", [("images", "masks"), ("img", "seg"), ("Image", "GT"), ("images", "annotations")])
def test_folders_of_other_names(tmp_path, names):
    folder = rename(write_png_pairs(tmp_path / "a", ["P1"]), Images=names[0], Labels=names[1])
    (item,) = find_items([folder])
    assert item.format == "png-pairs"
    assert read(item)[0]["seg/mask"][0].any()


def test_each_folder_of_masks_is_an_element(tmp_path):
    folder = write_png_pairs(tmp_path / "a", ["P1", "P2"])
    for file in sorted((folder / "Labels").rglob("P1-*.png")):
        other = folder / "masks" / file.relative_to(folder / "Labels")
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.asarray(Image.open(file).convert("L"))).save(other)
    first, second = (read(item)[0] for item in find_items([folder]))
    assert set(first) == {"image/cine", "seg/labels", "seg/masks"}
    np.testing.assert_array_equal(first["seg/labels"][0] + first["seg/masks"][0], 1)
    assert set(second) == {"image/cine", "seg/labels"}


def test_sixteen_bits(tmp_path):
    folder = write_png_pairs(tmp_path / "a", ["P1"])
    grey = np.arange(120, dtype=np.uint16).reshape(10, 12) * 500
    ids = np.tile(np.array([0, 300, 1], np.uint16), (10, 4))
    for kind, plane in (("Images", grey), ("Labels", ids)):
        for file in (folder / kind).rglob("*.png"):
            Image.fromarray(plane).save(file)
    arrays, _ = read(find_items([folder])[0])
    assert arrays["image/cine"][0].dtype == np.float32  # up to 59500
    np.testing.assert_array_equal(arrays["image/cine"][0][1], grey)
    assert arrays["seg/mask"][0].dtype == np.uint16
    np.testing.assert_array_equal(arrays["seg/mask"][0][1], ids)
    assert arrays["seg/mask"][1].labels == {1: "label 1", 300: "label 300"}


def test_parts_of_the_folders_are_a_split(tmp_path):
    for part, patients in (("train", ["P1", "P2"]), ("test", ["P3"])):
        folder = write_png_pairs(tmp_path / part, patients)
        for kind in ("Images", "Labels"):
            (tmp_path / "in").mkdir(exist_ok=True)
            (folder / kind).rename(tmp_path / "in" / f"{kind}_{part}")
    assert not convert([tmp_path / "in"], tmp_path / "c", progress=False).failures
    split = open_cohort(tmp_path / "c").split("png-pairs")
    assert (len(split.train), len(split.test)) == (2, 1)


def test_jpegs_are_refused_by_name(tmp_path):
    folder = write_png_pairs(tmp_path / "a", ["P1"])
    for file in (folder / "Images").rglob("*.png"):
        Image.open(file).convert("L").save(file.with_suffix(".jpg"))
        file.unlink()
    (failure,) = convert([folder], tmp_path / "c", progress=False).failures
    assert "images: expected PNG, got JPEG (" in failure.error


def test_masks_in_colours_are_refused_but_not_grey_ones(tmp_path):
    folder = write_png_pairs(tmp_path / "a", ["P1"])
    files = sorted((folder / "Labels").rglob("*.png"))
    expected = np.stack([np.asarray(Image.open(file)) for file in files])
    for file in files:
        with Image.open(file) as image:
            image.convert("RGB").save(file)
    np.testing.assert_array_equal(read(find_items([folder])[0])[0]["seg/mask"][0] * 255, expected)
    colours = np.zeros((10, 12, 3), np.uint8)
    colours[2, 2] = 255, 0, 0
    Image.fromarray(colours).save(files[0])
    with pytest.raises(FormatError, match="mask: expected grey levels, got colours"):
        read(find_items([folder])[0])


def write_frames(folder, names):
    """Write an image and a mask of each name, whose grey level is its position."""
    for value, name in enumerate(names, start=1):
        mask = np.zeros((6, 5), np.uint8)
        mask[2, 2] = 255
        for kind, plane in (("Images", np.full((6, 5), value, np.uint8)), ("Labels", mask)):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(plane).save(folder / kind / name)
    return folder


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_frames(tmp_path / "a", ["P1_1.png", "P1_2.png", "P1_9.png", "P1_10.png", "P1_100.png"])
    arrays, raw = read(find_items([folder])[0])
    assert arrays["image/cine"][0][:, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert raw.attributes["frames"] == ["1.png", "2.png", "9.png", "10.png", "100.png"]


@pytest.mark.parametrize("name", ["frame_{:03}.png", "{:03}.png", "t1_{:03}.png", "DOE_JOHN_{}.png"])
def test_a_folder_per_patient(tmp_path, name):
    names = [f"{folder}/{name.format(n)}" for folder in ("Li", "p2") for n in range(1, 4)]
    folder = write_frames(tmp_path / "a", names)
    assert not convert([folder], tmp_path / "c", progress=False).failures
    volumes = open_cohort(tmp_path / "c").volumes()
    assert len({volume.subject_id for volume in volumes}) == len(volumes) == 2
    assert sorted(volume["image/cine"].numpy()[:, 0, 0].tolist() for volume in volumes) == [[1, 2, 3], [4, 5, 6]]
    content = b"".join(file.read_bytes() for file in (tmp_path / "c").rglob("*") if file.is_file())
    assert b"DOE" not in content


def test_patients_in_one_folder_are_not_one_patient(tmp_path):
    names = [f"Part1/{patient}_{n}.png" for patient in ("DOE", "ROE") for n in range(2)]
    items = find_items([write_frames(tmp_path / "a", names)])
    assert len({get_format("png-pairs").identify(item).subject for item in items}) == 2


@pytest.mark.realdata
def test_real_cine_of_hearts(real_data, tmp_path):
    folder = real_data / "cardiac_cine"
    items = find_items([folder])
    assert sum(len(item.options["images"]) for item in items) == 526
    link = tmp_path / "in"
    patient = items[0].options["patient"]
    for image in items[0].options["images"]:
        for kind in ("Images", "Labels"):
            copy = link / kind / image.relative_to(folder / "Images")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((folder / kind / image.relative_to(folder / "Images")).read_bytes())
    assert not convert([link], tmp_path / "c", progress=False).failures
    (volume,) = volumes(tmp_path / "c")
    assert volume["image/cine"].shape == (len(items[0].options["images"]), 256, 256)
    first = next(path for path in sorted((link / "Labels").rglob("*.png")) if path.name.startswith(patient))
    np.testing.assert_array_equal(np.asarray(volume["seg/mask"][0]), np.asarray(Image.open(first).convert("L")) == 255)


def test_bad_folders_are_refused(tmp_path):
    missing = write_png_pairs(tmp_path / "a", ["P1"])
    next((missing / "Labels").rglob("*-0001.dcm.png")).unlink()
    size = write_png_pairs(tmp_path / "b", ["P1"])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(next((size / "Images").rglob("*-0002.dcm.png")))
    masks = write_png_pairs(tmp_path / "c", ["P1"])
    for file in (masks / "Labels").rglob("*.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(file)
    grey = write_png_pairs(tmp_path / "d", ["P1"])
    for file in (grey / "Labels").rglob("*.png"):
        Image.fromarray(np.arange(120, dtype=np.uint8).reshape(10, 12)).save(file)
    broken = write_png_pairs(tmp_path / "e", ["P1"])
    file = next((broken / "Images").rglob("*.png"))
    file.write_bytes(file.read_bytes()[:60])
    cases = [
        (missing, FormatError, r"Labels/.*-0001\.dcm\.png: expected the mask of .*Images/.*-0001"),
        (size, ShapeError, r"0002\.dcm\.png: frame size: expected \(10, 12\) as .* got \(4, 4\)"),
        (masks, ShapeError, r"mask size: expected \(3, 10, 12\), got \(3, 4, 4\)"),
        (grey, FormatError, "mask: expected 0 and 255, or up to 32 label ids, got 119 values up to 119"),
        (broken, FormatError, "expected a readable PNG"),
    ]
    for folder, error, message in cases:
        with pytest.raises(error, match=message):
            read(find_items([folder])[0])
