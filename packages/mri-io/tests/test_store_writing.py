"""Writing elements: streams, and what the specification refuses, with what the error says."""

import os
import re
import threading
import tracemalloc

import numpy as np
import pytest

from mri_io import open_cohort, open_volume, verify
from mri_io.errors import ElementExistsError, NonFiniteError, SchemaError, ShapeError, StoreError
from mri_io.schema import Provenance, Source
from mri_io.store import commit, create_cohort, durable, make_volume_id
from mri_io.store import volume as volumes

IMAGE = np.ones((3, 7, 5), np.float32)
KSPACE = np.ones((3, 2, 7, 5), np.complex64)
LABELS = np.ones((3, 7, 5), np.uint8)
SHIFTED = np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3)


def with_value(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


REFUSED = {
    "unknown type": ("recom/a", IMAGE, {}, SchemaError, r"recom/a: element type: expected kspace, .* got 'recom'"),
    "no name": ("recon", IMAGE, {}, SchemaError, "element path: expected recon/<name>.* got 'recon'"),
    "a name too many": ("kspace/a", KSPACE, {}, SchemaError, "element path: expected kspace, got 'kspace/a'"),
    "odd name": ("recon/a b", IMAGE, {}, SchemaError, "names of letters, digits"),
    "a name within a name": ("recon/a/b", IMAGE, {}, SchemaError, "expected recon/<name>"),
    "a layer without a model": ("emb/sam", IMAGE, {}, SchemaError, "expected emb/<model>/<layer>"),
    "hidden name": ("recon/.a", IMAGE, {}, SchemaError, "element path"),
    "name of the array": ("recon/data", IMAGE, {}, SchemaError, "element path"),
    "dimensions": ("kspace", IMAGE, {}, ShapeError, r"kspace: dimensions: expected \(slice, coil, ky, kx\) or .* got"),
    "dims": ("recon/a", IMAGE, {"dims": ("y", "x", "z")}, ShapeError, r"got \(y, x, z\) of shape \(3, 7, 5\)"),
    "empty": ("recon/a", IMAGE[:0], {}, ShapeError, r"got shape \(0, 7, 5\)\. No dimension may be empty"),
    "ambiguous mask": ("mask/a", LABELS[0, 0], {}, ShapeError, r"Pass one of \(ky\) or \(kx\).* as dims="),
    "double": ("recon/a", IMAGE.astype(np.float64), {}, SchemaError, "dtype: expected float32, complex64, got float64"),
    "complex128": ("kspace", KSPACE.astype(complex), {}, SchemaError, "expected complex64, got complex128. Convert"),
    "signed labels": ("seg/a", LABELS.astype(np.int16), {"labels": {1: "a"}}, SchemaError, "dtype: expected uint8"),
    "NaN": ("recon/a", with_value(IMAGE, (1, 2, 3), np.nan), {}, NonFiniteError, r"1 NaN .* at index \(1, 2, 3\)"),
    "inf": (
        "kspace",
        with_value(KSPACE, (2, 1, 0, 4), 1j * np.inf),
        {},
        NonFiniteError,
        r"first at index \(2, 1, 0, 4\)",
    ),
    "mask of 2": ("mask/a", np.full((7, 5), 2, np.uint8), {}, SchemaError, "values: expected 0 to 1, got 2"),
    "no labels": ("seg/a", LABELS, {}, SchemaError, "labels: expected a mapping .* got none declared"),
    "undeclared": (
        "seg/a",
        with_value(LABELS, 1, 9),
        {"labels": {1: "a"}},
        SchemaError,
        r"expected 0 \(background\), 1, got 9",
    ),
    "label 0": (
        "seg/a",
        LABELS,
        {"labels": {0: "background", 1: "a"}},
        SchemaError,
        "expected a positive integer, got 0",
    ),
    "label without name": ("seg/a", LABELS, {"labels": {1: {"code": "X"}}}, SchemaError, "label 1: expected a name"),
    "labels of an image": ("image/a", IMAGE, {"labels": {1: "a"}}, SchemaError, "has no labels. Leave them out"),
    "affine of k-space": ("kspace", KSPACE, {"affine": np.eye(4)}, SchemaError, "type 'kspace' has no affine"),
    "small affine": (
        "recon/a",
        IMAGE,
        {"affine": np.eye(3)},
        SchemaError,
        r"affine shape: expected \(4, 4\), got \(3, 3\)",
    ),
    "singular affine": ("recon/a", IMAGE, {"affine": np.diag([1, 0, 1, 1])}, SchemaError, "invertible"),
    "NaN affine": ("recon/a", IMAGE, {"affine": np.eye(4) * np.nan}, SchemaError, "affine: expected finite"),
    "transposed affine": ("recon/a", IMAGE, {"affine": SHIFTED.T}, SchemaError, "last row 0 0 0 1"),
    "own attribute": ("recon/a", IMAGE, {"attributes": {"commit": "x"}}, SchemaError, "commit are set by the store"),
    "patient": ("recon/a", IMAGE, {"attributes": {"PatientName": "x"}}, SchemaError, "PatientName identify a patient"),
    "patient id": ("recon/a", IMAGE, {"attributes": {"patient_id": "x"}}, SchemaError, "identify a patient"),
    "no unit": ("qmap/t1", IMAGE, {}, SchemaError, "attributes: expected unit"),
    "array of prompts": ("prompts/a", IMAGE, {}, SchemaError, "arrays: expected label, slice and perhaps boxes"),
    "boxes of three": (
        "prompts/a",
        {"slice": np.zeros(2, int), "label": np.zeros(2, int), "boxes": np.zeros((2, 4))},
        {},
        SchemaError,
        "prompts/a: boxes: dtype: expected float32, got float64",
    ),
    "unserialisable": ("recon/a", IMAGE, {"attributes": {"x": {1, 2}}}, SchemaError, "not JSON values: .* type set"),
    "NaN attribute": (
        "recon/a",
        IMAGE,
        {"attributes": {"x": float("nan")}},
        SchemaError,
        "not JSON values: Out of range float",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(volume, made, case):
    path, data, more, error, message = REFUSED[case]
    before = sorted(volume.path.rglob("*"))
    with pytest.raises(error, match=message):
        volume.write(path, data, provenance=made, **more)
    assert volume.elements() == {}
    assert sorted(volume.path.rglob("*")) == before
    assert list((volume.path.parent / ".staging").glob("*")) == []
    assert verify(volume).ok


PERSONAL = (
    *("PatientName", "patient_id", "PatientAge", "PatientSex", "OtherPatientIDs", "IssuerOfPatientID", "OperatorsName"),
    *("PhysiciansOfRecord", "ReferringPhysicianName", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy"),
    *("InstitutionName", "institutional_department", "StationName", "station", "ScheduledStationName", "MRN"),
    *("AccessionNumber", "DeviceSerialNumber", "requesting_service", "birth-date"),
)  # fmt: skip
HARMLESS = ("patience", "stationary", "performance", "cooperator", "preferred", "email_free", "codes", "series", "path")


@pytest.mark.parametrize("key", PERSONAL)
def test_what_identifies_a_patient_is_refused_at_any_depth(volume, made, key):
    """In attributes of elements and volumes, in converter and the configuration of provenance, and with labels."""
    deep = {"scan": [{"more": ({key: "Doe^John"},)}]}
    message = rf"scan\.more\.{key} identify a patient"
    with pytest.raises(SchemaError, match=message):
        volume.write("recon/a", IMAGE, provenance=made, attributes=deep)
    with pytest.raises(SchemaError, match=rf"provenance\.config.*{message}"):
        volume.write("recon/a", IMAGE, provenance=made.model_copy(update={"config": deep}))
    with pytest.raises(SchemaError, match=message):
        volume.write("seg/a", LABELS, provenance=made, labels={1: {"name": "a", **deep}})
    cohort = open_cohort(volume.path.parents[1])
    with pytest.raises(SchemaError, match=message):
        cohort.create_volume("sub-02_acq-t1_run-1", subject_id="sub-02", attributes=deep).__enter__()
    with pytest.raises(SchemaError, match=rf"converter.*{message}"):
        cohort.create_volume("sub-02_acq-t1_run-1", subject_id="sub-02", converter=deep).__enter__()
    assert volume.elements() == {}
    assert not any(b"Doe" in path.read_bytes() for path in cohort.path.rglob("*") if path.is_file())


def test_harmless_names_are_taken(volume, made):
    further = {"nested": [{key: 1} for key in HARMLESS]}
    element = volume.write("recon/a", IMAGE, provenance=made.model_copy(update={"config": further}), attributes=further)
    assert element.attributes["nested"] == further["nested"]


MISFIT = {
    "mask along kx": ("mask/a", np.ones(7, np.uint8), {"dims": ("kx",)}, r"mask length along kx: expected 5, .* got 7"),
    "mask along ky": ("mask/a", np.ones(5, np.uint8), {"dims": ("ky",)}, r"mask length along ky: expected 7, .* got 5"),
    "coils of maps": (
        "sens/a",
        np.ones((3, 1, 4, 7, 5), np.complex64),
        {},
        "sens length along coil: expected 2.* got 4",
    ),
    "grid of maps": ("sens/a", np.ones((3, 1, 2, 5, 7), np.complex64), {}, "sens length along y: expected 7.* got 5"),
    "coils of noise": ("noise", np.ones((3, 9), np.complex64), {}, "noise length along coil: expected 2.* got 3"),
    "slices": ("recon/a", np.ones((2, 7, 5), np.float32), {}, "recon length along slice: expected 3.* got 2"),
    "labels": (
        "seg/a",
        np.ones((3, 5, 7), np.uint8),
        {"labels": {1: "a"}},
        r"label grid: expected \(3, 7, 5\).*Resample",
    ),
}


@pytest.mark.parametrize("case", MISFIT)
def test_elements_fit_the_kspace(volume, made, case):
    path, data, more, message = MISFIT[case]
    volume.write("kspace", KSPACE, provenance=made)
    with pytest.raises(ShapeError, match=message):
        volume.write(path, data, provenance=made, **more)
    assert set(volume.elements()) == {"kspace"}


def test_kspace_fits_the_elements(volume, made):
    volume.write("mask/a", np.ones(6, np.uint8), provenance=made, dims=("kx",))
    with pytest.raises(ShapeError, match=r"kspace, beside mask/a: mask length along kx: expected 5.* got 6"):
        volume.write("kspace", KSPACE, provenance=made)


@pytest.mark.parametrize("image", ["recon/a", "image/a", "qmap/a"])
def test_labels_lie_on_an_image(volume, made, image):
    more = {"attributes": {"unit": "s"}} if image == "qmap/a" else {}
    volume.write(image, IMAGE, provenance=made, affine=np.eye(4), **more)
    with pytest.raises(
        ShapeError, match=re.escape(f"that of an image of the volume ({image} (3, 7, 5)), got (3, 5, 7)")
    ):
        volume.write("seg/a", np.ones((3, 5, 7), np.uint8), provenance=made, labels={1: "a"})
    with pytest.raises(ShapeError, match=f"label affine: expected .* as of {image}"):
        volume.write("seg/a", LABELS, provenance=made, labels={1: "a"}, affine=SHIFTED)
    volume.write(
        "seg/a", LABELS, provenance=made, labels={1: "a"}, affine=np.eye(4) * (1 + 1e-9) - np.diag([0, 0, 0, 1e-9])
    )
    volume.write("seg/b", LABELS, provenance=made, labels={1: "a"})
    assert verify(volume).ok


def test_a_map_may_lack_values_and_says_its_unit(volume, made):
    data = with_value(IMAGE, (0, 0, 0), np.nan)
    element = volume.write("qmap/t1", data, provenance=made, attributes={"unit": "s"})
    np.testing.assert_array_equal(element.numpy(), data)
    assert element.attributes["unit"] == "s"


@pytest.mark.parametrize("blocks", [[1, 1, 1], [2, 1], [3], [0, 3, 0]])
@pytest.mark.parametrize(("path", "data"), [("kspace", KSPACE), ("recon/a", IMAGE), ("seg/a", LABELS)])
def test_a_stream_of_blocks(volume, made, rng, path, data, blocks):
    data = (data * rng.random(data.shape)).round(2).astype(data.dtype)
    more = {"labels": {1: "a"}} if path == "seg/a" else {}
    with volume.writer(path, shape=data.shape, dtype=data.dtype, provenance=made, **more) as writer:
        start = 0
        for size in blocks:
            writer.append(data[start : start + size])
            start += size
            assert path not in volume
            assert volume.elements() == {}
    np.testing.assert_array_equal(open_volume(volume.path)[path].numpy(), data)


def test_a_stream_equals_one_write(volume, made, rng):
    data = rng.standard_normal((9, 7, 5)).astype(np.float32)
    volume.write("recon/a", data, provenance=made)
    with volume.writer("recon/b", shape=data.shape, dtype=data.dtype, provenance=made) as writer:
        for start in range(0, 9, 2):
            writer.append(data[start : start + 2])
    files = [sorted(p for p in (volume.path / e / "data").rglob("*") if p.is_file()) for e in ("recon/a", "recon/b")]
    assert [a.read_bytes() for a in files[0]] == [b.read_bytes() for b in files[1]]


BLOCKS = {
    "wrong shape": (
        [IMAGE[:, :, :4]],
        ShapeError,
        r"block: expected at most 3 rows of shape \(7, 5\), got \(3, 7, 4\)",
    ),
    "too many": ([IMAGE, IMAGE[:1]], ShapeError, r"block: expected at most 0 rows"),
    "too few": ([IMAGE[:2]], ShapeError, "rows: expected 3, got 2"),
    "none": ([], ShapeError, "rows: expected 3, got 0"),
    "other dtype": ([IMAGE.astype(complex)], SchemaError, "dtype: expected float32, got complex128"),
    "late NaN": ([IMAGE[:2], IMAGE[2:] * np.nan], NonFiniteError, r"35 NaN .* at index \(2, 0, 0\)"),
    "a row": ([IMAGE[0]], ShapeError, "block"),
}


def stream(volume, made, blocks, then=lambda: None):
    """Write the image from blocks; do something else before the end."""
    with volume.writer("recon/a", shape=(3, 7, 5), dtype="float32", provenance=made) as writer:
        for block in blocks:
            writer.append(block)
        then()


def fail():
    raise RuntimeError("mine")


@pytest.mark.parametrize("case", BLOCKS)
def test_bad_blocks_leave_nothing(volume, made, case):
    blocks, error, message = BLOCKS[case]
    with pytest.raises(error, match=message):
        stream(volume, made, blocks)
    assert volume.elements() == {}
    assert list((volume.path.parent / ".staging").glob("*")) == []


def test_an_error_in_the_block_of_a_writer_leaves_nothing(volume, made):
    with pytest.raises(RuntimeError, match="mine"):
        stream(volume, made, [IMAGE], fail)
    assert "recon/a" not in volume
    assert list((volume.path.parent / ".staging").glob("*")) == []


def test_streams_take_the_memory_of_a_block(volume, made):
    block = np.ones((1, 8, 128, 128), np.complex64)  # 1 MiB
    tracemalloc.start()
    with volume.writer("kspace", shape=(64, 8, 128, 128), dtype="complex64", provenance=made) as writer:
        tracemalloc.reset_peak()
        for _ in range(64):
            writer.append(block)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * block.nbytes
    assert volume["kspace"].shape == (64, 8, 128, 128)


def test_a_volume_that_was_removed_takes_no_more(volume, made):
    cohort = open_cohort(volume.path.parents[1])
    with pytest.raises(
        StoreError, match=r"run-1\.zarr: the volume was removed while the element 'recon/a' was written"
    ):
        stream(volume, made, [IMAGE], lambda: cohort.remove_volume(volume.id))
    assert cohort.volume_ids() == []
    assert not volume.path.exists()


def test_a_volume_that_was_replaced_takes_nothing_made_from_the_old(volume, made):
    cohort = open_cohort(volume.path.parents[1])

    def replace():
        with cohort.create_volume(volume.id, subject_id="sub-01", converter={"sizes": (1, 2)}, replace=True) as new:
            pass
        new.write("recon/b", IMAGE, provenance=made)

    with pytest.raises(
        StoreError, match=r"run-1\.zarr: the volume was replaced while the element 'recon/a' was written"
    ):
        stream(volume, made, [IMAGE], replace)
    assert set(cohort[volume.id].elements()) == {"recon/b"}


def replaced(cohort, volume_id, made, coils):
    """Replace a volume by one with other data."""
    with cohort.create_volume(volume_id, subject_id="sub-01", attributes={"n": coils}, replace=True) as new:
        new.write("kspace", np.ones((2, coils, 8, 8), np.complex64), provenance=made)


def test_a_volume_replaced_during_the_flush_takes_nothing_made_from_the_old(volume, made, monkeypatch):
    """The flush is the longest step of a commit: the volume is looked at after it."""
    cohort = open_cohort(volume.path.parents[1])
    replaced(cohort, volume.id, made, 4)
    old, flush = cohort[volume.id], commit.flush_tree

    def slow(node):
        flush(node)
        monkeypatch.setattr(commit, "flush_tree", flush)
        replaced(cohort, volume.id, made, 6)

    monkeypatch.setattr(commit, "flush_tree", slow)
    with pytest.raises(StoreError, match=r"the volume was replaced while the element 'sens/a' was written"):
        old.write("sens/a", np.ones((2, 1, 4, 8, 8), np.complex64), provenance=made)
    assert set(cohort[volume.id].elements()) == {"kspace"}
    assert verify(cohort).ok


def test_an_element_that_joined_during_the_flush_must_fit(volume, made, monkeypatch):
    cohort = open_cohort(volume.path.parents[1])
    flush = commit.flush_tree

    def slow(node):
        flush(node)
        monkeypatch.setattr(commit, "flush_tree", flush)
        volume.write("kspace", np.ones((2, 6, 8, 8), np.complex64), provenance=made)

    monkeypatch.setattr(commit, "flush_tree", slow)
    with pytest.raises(ShapeError, match="coil"):
        volume.write("sens/a", np.ones((2, 1, 4, 8, 8), np.complex64), provenance=made)
    assert set(volume.elements()) == {"kspace"}
    assert verify(cohort).ok


@pytest.mark.parametrize("exchange", [True, False])
def test_a_replacement_waits_for_an_element_that_joins(volume, made, monkeypatch, exchange):
    """Between the last look at the volume and the rename nobody can put another volume in its place."""
    cohort = open_cohort(volume.path.parents[1])
    replaced(cohort, volume.id, made, 4)
    old, join = cohort[volume.id], volumes.Volume._make_parents
    if not exchange:
        monkeypatch.setattr(commit, "_exchange", lambda *_: False)
    other = threading.Thread(target=replaced, args=(cohort, volume.id, made, 6))

    def slow(self, path, staged):
        join(self, path, staged)
        if path == "sens/a":
            other.start()
            other.join(0.3)
            assert other.is_alive()

    monkeypatch.setattr(volumes.Volume, "_make_parents", slow)
    with old.writer("sens/a", shape=(2, 1, 4, 8, 8), dtype="complex64", provenance=made) as writer:
        writer.append(np.ones((2, 1, 4, 8, 8), np.complex64))
    other.join()
    assert set(cohort[volume.id].elements()) == {"kspace"}
    report = verify(cohort)
    assert (report.ok, report.orphans) == (True, [])


def test_a_volume_is_published_whole(volume, made):
    cohort = open_cohort(volume.path.parents[1])
    new = "sub-02_acq-t1_run-1"
    with cohort.create_volume(new, subject_id="sub-02") as staged:
        staged.write("kspace", KSPACE, provenance=made)
        assert set(staged.elements()) == {"kspace"}
        assert new not in cohort
        assert cohort.state(new) == "absent"
    np.testing.assert_array_equal(cohort[new]["kspace"].numpy(), KSPACE)
    np.testing.assert_array_equal(staged["kspace"].numpy(), KSPACE)
    with (
        pytest.raises(ElementExistsError, match="volume is committed already"),
        cohort.create_volume(new, subject_id="sub-02"),
    ):
        pass
    with (
        pytest.raises(ValueError, match="mine"),
        cohort.create_volume(new, subject_id="sub-02", replace=True) as staged,
    ):
        raise ValueError("mine")
    assert set(cohort[new].elements()) == {"kspace"}
    with cohort.create_volume(new, subject_id="sub-02", replace=True) as staged:
        staged.write("recon/a", IMAGE, provenance=made)
    assert set(cohort[new].elements()) == {"recon/a"}
    assert list((cohort.path / "volumes" / ".staging").glob("*")) == []


@pytest.mark.parametrize(
    "volume_id", ["sub-01", "../sub-01_acq-a_run-1", "sub-01_acq-a_run-1/x", "sub-01_acq-a b_run-1"]
)
def test_volume_ids_follow_the_form(volume, volume_id):
    cohort = open_cohort(volume.path.parents[1])
    with (
        pytest.raises(SchemaError, match=r"volume_id: .* does not match"),
        cohort.create_volume(volume_id, subject_id="sub-01"),
    ):
        pass
    assert len(cohort) == 1


@pytest.mark.parametrize("subject", ["", "John Doe", "sub-", "sub-01/02"])
def test_subjects_are_pseudonyms(volume, subject):
    cohort = open_cohort(volume.path.parents[1])
    with (
        pytest.raises(SchemaError, match=r"subject_id: .* does not match"),
        cohort.create_volume("sub-02_acq-a_run-1", subject_id=subject),
    ):
        pass


def test_ids_are_made_of_plain_characters():
    assert make_volume_id("01", session="a_b", acquisition="AX T2*", run=3) == "sub-01_ses-ab_acq-AXT2_run-3"
    with pytest.raises(SchemaError, match="part of a volume id: expected letters or digits, got '--'"):
        make_volume_id("--", acquisition="t1")


def test_provenance_is_required(volume):
    with pytest.raises(TypeError):
        volume.write("recon/a", IMAGE)
    with pytest.raises(SchemaError, match=r"provenance\.method"):
        volume.write("recon/a", IMAGE, provenance=Provenance(method="", package="p", version="0"))
    assert "recon/a" not in volume


def test_finite_values_whose_sum_is_not(volume, made):
    large = np.full((2, 4, 5), 3e38, np.float32)
    np.testing.assert_array_equal(volume.write("recon/large", large, provenance=made).numpy(), large)
    large[1, 2, 3] = np.inf
    with pytest.raises(NonFiniteError, match=r"1 NaN or infinite, the first at index \(1, 2, 3\)"):
        volume.write("recon/infinite", large, provenance=made)
    with pytest.raises(NonFiniteError, match="2 NaN or infinite"):
        volume.write("recon/both", np.array([[[np.inf, -np.inf]]], np.float32), provenance=made)


@pytest.mark.parametrize("fails", [False, True])
def test_long_files_are_flushed_while_they_are_written(volume, made, monkeypatch, fails):
    """The early flush changes nothing of what is stored, whether it works or not."""
    called = []

    def flush(descriptor):
        called.append(os.fstat(descriptor).st_size)
        if fails:
            raise OSError(5, "no")

    monkeypatch.setattr(durable, "_EARLY_BYTES", 1000)
    monkeypatch.setattr(durable.os, "fdatasync", flush, raising=False)
    data = np.random.default_rng(0).random((9, 16, 16)).astype(np.complex64)
    with volume.writer("recon/a", shape=data.shape, dtype=data.dtype, provenance=made) as writer:
        for block in data[:, None]:
            writer.append(block)
    np.testing.assert_array_equal(volume["recon/a"].numpy(), data)
    assert called
    assert verify(volume).ok


def test_the_source_may_be_told_at_the_end(tmp_path):
    cohort = create_cohort(tmp_path / "c")
    source = Source(uri="a.h5", sha256="a" * 64, format="fastmri")
    with cohort.create_volume("sub-1_acq-a_run-1", subject_id="sub-1", source=lambda: source) as volume:
        pass
    assert volume.source == open_volume(volume.path).source == source

    def broken():
        raise StoreError("a.h5: gone")

    with (
        pytest.raises(StoreError, match="gone"),
        cohort.create_volume("sub-2_acq-a_run-1", subject_id="sub-2", source=broken),
    ):
        pass
    assert len(cohort) == 1
    assert verify(cohort).ok
