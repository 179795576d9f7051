"""Slices for training: equal to the store, the same in every process, and reproducible from seed and step alone."""

import importlib
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mri_io import create_cohort
from mri_io.errors import ConfigError, CorruptElementError, ElementNotFoundError, ShapeError
from mri_io.schema import Provenance
from mri_io.store import Split, quantise
from mri_io.testing import flip_bit
from mri_io.torch import SliceDataset, StepSampler, check_device, collate_slices

MADE = Provenance(method="test", package="mri-io", version="0")
SIZES = {"sub-01": (3, 2, 10, 8), "sub-02": (2, 4, 10, 8), "sub-03": (4, 2, 12, 6), "sub-04": (2, 2, 10, 8)}
ELEMENTS = ["kspace", "sens/a", "recon/a", "seg/a", "mask/kx", "mask/slice", "noise"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Four subjects whose numbers of slices and coils and whose matrices differ, and the arrays written."""
    rng = np.random.default_rng(4)
    cohort = create_cohort(tmp_path_factory.mktemp("torch") / "c")
    written = {}
    for subject, (slices, coils, ny, nx) in SIZES.items():
        with cohort.create_volume(f"{subject}_acq-a_run-1", subject_id=subject) as volume:
            arrays = {
                "kspace": rng.random((slices, coils, ny, nx)).astype(np.complex64),
                "sens/a": rng.random((slices, 1, coils, ny, nx)).astype(np.complex64),
                "recon/a": rng.random((slices, ny, nx)).astype(np.float32),
                "seg/a": rng.integers(0, 2, (slices, ny, nx)).astype(np.uint8),
                "mask/kx": rng.integers(0, 2, nx).astype(np.uint8),
                "mask/slice": rng.integers(0, 2, (slices, ny, nx)).astype(np.uint8),
                "noise": rng.random((coils, 5)).astype(np.complex64),
            }
            for path, data in arrays.items():
                more = {"labels": {1: "a"}} if path == "seg/a" else {}
                dims = {"mask/kx": ("kx",), "mask/slice": ("slice", "ky", "kx")}.get(path)
                volume.write(path, data, provenance=MADE, dims=dims, **more)
            written[volume.id] = arrays
    cohort.write_split(Split(name="default", train=("sub-01", "sub-03"), val=("sub-02",), test=("sub-04",)))
    return cohort, written


TRANSFORM = """
import numpy as np

def jitter(sample, rng):
    noise = rng.standard_normal(sample["recon/a"].shape).astype(np.float32)
    return {**sample, "noisy": sample["recon/a"] + noise, "n": int(rng.integers(10**9))}
"""


@pytest.fixture
def jitter(tmp_path, monkeypatch):
    """A random transform, in a module that workers can import."""
    (tmp_path / "random_transform.py").write_text(TRANSFORM)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("random_transform").jitter


def test_samples_equal_the_store(mixed):
    cohort, written = mixed
    dataset = SliceDataset(cohort, ELEMENTS, part=None)
    assert len(dataset) == sum(size[0] for size in SIZES.values())
    seen = []
    for index in range(len(dataset)):
        sample = dataset[index]
        arrays, position = written[sample["volume_id"]], sample["slice"]
        seen.append((sample["volume_id"], position))
        assert sample["subject_id"] == sample["volume_id"][:6]
        assert dataset.volume_of(index) == sample["volume_id"]
        for path in ("kspace", "sens/a", "recon/a", "seg/a", "mask/slice"):
            np.testing.assert_array_equal(sample[path], arrays[path][position])
            assert sample[path].dtype == arrays[path].dtype
        np.testing.assert_array_equal(sample["mask/kx"], arrays["mask/kx"][None, :])
        np.testing.assert_array_equal(sample["noise"], arrays["noise"])
    assert seen == sorted((v, s) for v, arrays in written.items() for s in range(len(arrays["kspace"])))


def test_samples_may_be_written_to(mixed):
    cohort, _ = mixed
    dataset = SliceDataset(cohort, ELEMENTS)
    before = pickle.dumps(dataset[1])
    for value in dataset[1].values():
        if isinstance(value, np.ndarray):
            value[...] = 0
    assert pickle.dumps(dataset[1]) == before


@pytest.mark.parametrize(
    ("options", "subjects", "count"),
    [
        ({}, {"sub-01", "sub-03"}, 7),
        ({"part": "val"}, {"sub-02"}, 2),
        ({"part": "test"}, {"sub-04"}, 2),
        ({"part": None}, set(SIZES), 11),
        ({"volumes": ["sub-03_acq-a_run-1"]}, {"sub-03"}, 4),
        ({"slices": range(1, 2)}, {"sub-01", "sub-03"}, 2),
        ({"slices": lambda volume, s, n: s == n - 1 and "sub-03" in volume}, {"sub-03"}, 1),
    ],
)
def test_parts_and_slices_are_chosen(mixed, options, subjects, count):
    cohort, _ = mixed
    dataset = SliceDataset(cohort.path, ["recon/a"], **options)
    assert {sample["subject_id"] for sample in dataset} == subjects
    assert len(dataset) == len(list(dataset)) == count
    assert [row["subject_id"] for row in dataset.metadata] == sorted({row["subject_id"] for row in dataset.metadata})


def test_randomness_is_of_seed_index_and_draw(mixed, jitter):
    cohort, _ = mixed
    make = lambda seed: SliceDataset(cohort, ["recon/a"], transform=jitter, seed=seed)  # noqa: E731
    first, again = make(3), make(3)
    for index in (4, 0, 4):  # in any order, however often
        np.testing.assert_array_equal(first[index]["noisy"], again[index]["noisy"])
        np.testing.assert_array_equal(first[index]["noisy"], first[index, 0]["noisy"])
    expected = np.random.default_rng([3, 4, 7])
    noise = expected.standard_normal(first[4]["noisy"].shape).astype(np.float32)
    plain = SliceDataset(cohort, ["recon/a"])[4]["recon/a"]
    np.testing.assert_array_equal(first[4, 7]["noisy"], plain + noise)
    draws = {int(make(seed)[index, draw]["n"]) for seed in (3, 4) for index in (0, 1) for draw in (0, 1)}
    assert len(draws) == 8
    assert first[-1]["n"] == first[len(first) - 1]["n"]
    with pytest.raises(IndexError):
        first[len(first)]


def test_missing_elements_name_the_volumes(mixed):
    cohort, _ = mixed
    volume = cohort["sub-03_acq-a_run-1"]
    volume.write("recon/b", np.ones((4, 12, 6), np.float32), provenance=MADE)
    message = r"1 of 2 volumes lack elements: sub-01_acq-a_run-1 \(recon/b\)\. Prepare them first or choose other"
    with pytest.raises(ElementNotFoundError, match=message):
        SliceDataset(cohort, ["recon/a", "recon/b"])
    message = (
        r"4 of 4 volumes lack elements: sub-01_acq-a_run-1 \(recon/b, recon/x\); .* sub-03_acq-a_run-1 \(recon/x\)"
    )
    with pytest.raises(ElementNotFoundError, match=message):
        SliceDataset(cohort, ["recon/b", "recon/x"], part=None)
    volume.remove("recon/b")


def test_what_makes_no_data_set(mixed, tiny, made):
    cohort, _ = mixed
    with pytest.raises(ElementNotFoundError, match=r"no slices chosen \(split 'default', part 'train'\)"):
        SliceDataset(cohort, ["recon/a"], slices=range(90, 99))
    with pytest.raises(ElementNotFoundError, match="no slices chosen"):
        SliceDataset(cohort, ["mask/kx"])  # has none
    with pytest.raises(ElementNotFoundError, match="there is no split 'x'"):
        SliceDataset(cohort, ["recon/a"], split="x")
    with pytest.raises(ConfigError, match="part: expected train, val, test, got 'all'"):
        SliceDataset(cohort, ["recon/a"], part="all")
    with pytest.raises(ElementNotFoundError, match="there is no volume 'x'"):
        SliceDataset(cohort, ["recon/a"], volumes=["x"])
    volume = tiny.volumes()[0]
    volume.write("image/z", np.ones((5, 4, 4), np.float32), provenance=made)
    with pytest.raises(ShapeError, match=r"slices: expected one number for all elements, got .*'image/z': 5"):
        SliceDataset(tiny, ["kspace", "image/z"])
    prompts = {"slice": np.zeros(2, int), "label": np.ones(2, int)}
    volume.write("prompts/a", prompts, provenance=made)
    with pytest.raises(ShapeError, match=r"prompts/a: has several arrays; a sample takes elements of one array"):
        SliceDataset(tiny, ["kspace", "prompts/a"])


def test_dynamic_scans_are_sliced_along_slices(volume, made, rng):
    data = rng.random((5, 3, 2, 7, 4)).astype(np.complex64)
    volume.write("kspace", data, provenance=made, dims=("frame", "slice", "coil", "ky", "kx"))
    dataset = SliceDataset(volume.path.parents[1], ["kspace"], part=None)
    assert len(dataset) == 3
    np.testing.assert_array_equal(dataset[1]["kspace"], data[:, 1])


def test_masks_of_a_series_are_sliced_along_slices(volume, made, rng):
    masks = rng.integers(0, 2, (5, 3, 7, 4)).astype(np.uint8)
    data = rng.random((5, 3, 2, 7, 4)).astype(np.complex64)
    volume.write("kspace", data, provenance=made, dims=("frame", "slice", "coil", "ky", "kx"))
    volume.write("mask/a", masks, provenance=made, dims=("frame", "slice", "ky", "kx"))
    dataset = SliceDataset(volume.path.parents[1], ["kspace", "mask/a"], part=None)
    for position in range(3):
        np.testing.assert_array_equal(dataset[position]["mask/a"], masks[:, position])
    assert dataset.metadata[0]["shapes"] == {"kspace": (5, 2, 7, 4), "mask/a": (5, 7, 4)}


@pytest.mark.parametrize("writable", [True, False])
def test_embeddings_come_with_their_scales(volume, made, rng, writable):
    embedding = rng.standard_normal((3, 4, 5, 5)).astype(np.float32) * np.array([1, 10, 100, 0.1])[:, None, None]
    volume.write("emb/net/small", quantise(embedding), provenance=made)
    volume.write("emb/net/half", embedding.astype(np.float16), provenance=made)
    dataset = SliceDataset(volume.path.parents[1], ["emb/net/small", "emb/net/half"], part=None, writable=writable)
    for position in range(3):
        largest = np.abs(embedding[position]).max(axis=(1, 2), keepdims=True)
        assert (np.abs(dataset[position]["emb/net/small"] - embedding[position]) <= largest / 250).all()
        np.testing.assert_array_equal(dataset[position]["emb/net/half"], embedding[position].astype(np.float16))


def test_partitions_of_kspace_are_no_slices_of_an_image(volume, made, rng):
    data = rng.random((3, 2, 7, 5)).astype(np.complex64)
    volume.write("kspace", data, provenance=made, dims=("kz", "coil", "ky", "kx"))
    volume.write("mask/a", np.ones((3, 7, 5), np.uint8), provenance=made, dims=("kz", "ky", "kx"))
    volume.write("recon/a", np.ones((3, 7, 5), np.float32), provenance=made, dims=("z", "y", "x"))
    cohort = volume.path.parents[1]
    with pytest.raises(ShapeError, match=r"expected kz of all elements or of none, got .*kz.*recon/a.*z"):
        SliceDataset(cohort, ["kspace", "recon/a"], part=None)
    np.testing.assert_array_equal(SliceDataset(cohort, ["kspace", "mask/a"], part=None)[2]["kspace"], data[2])


def test_damage_is_an_error_not_a_sample(tiny):
    dataset = SliceDataset(tiny, ["kspace"])
    file = next(p for p in (tiny.volumes()[0].path / "kspace" / "data" / "c").rglob("*") if p.is_file())
    flip_bit(file, 8 * (1 * (2 * 10 * 8 * 8 + 4) + 5))  # in the second chunk
    dataset[0]
    with pytest.raises(CorruptElementError, match="chunk 1"):
        dataset[1]


def test_pickling_leaves_open_files_behind(mixed):
    cohort, _ = mixed
    dataset = SliceDataset(cohort, ELEMENTS, transform=None, seed=5)
    fresh = len(pickle.dumps(dataset))
    expected = [dataset[index] for index in range(len(dataset))]
    assert len(pickle.dumps(dataset)) == fresh
    copied = pickle.loads(pickle.dumps(dataset))
    for index, sample in enumerate(expected):
        for key, value in copied[index].items():
            np.testing.assert_array_equal(value, sample[key])


def test_workers_give_the_batches_of_one_process(mixed, jitter):
    cohort, _ = mixed
    dataset = SliceDataset(cohort, ["kspace", "recon/a", "mask/kx"], transform=jitter, seed=9)
    dataset[0]  # opened here; workers open for themselves
    sampler = StepSampler(len(dataset), 2, 6, seed=1, groups=dataset.shape_groups())

    def batches(workers):
        context = "forkserver" if workers else None
        return list(
            DataLoader(
                dataset,
                batch_sampler=sampler,
                num_workers=workers,
                collate_fn=collate_slices,
                multiprocessing_context=context,
            )
        )

    single, parallel = batches(0), batches(2)
    assert len(single) == len(parallel) == 6
    for one, other in zip(single, parallel, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]


def test_shapes_that_fit_are_stacked_others_listed(mixed):
    cohort, written = mixed
    dataset = SliceDataset(cohort, ["recon/a", "kspace"])
    same = collate_slices([dataset[0], dataset[1]])
    first = written["sub-01_acq-a_run-1"]
    np.testing.assert_array_equal(same["recon/a"].numpy(), first["recon/a"][:2])
    assert same["kspace"].dtype == torch.complex64
    assert same["slice"].tolist() == [0, 1]
    assert same["volume_id"] == ["sub-01_acq-a_run-1"] * 2
    other = collate_slices([dataset[0], dataset[6]])
    assert [tuple(image.shape) for image in other["recon/a"]] == [(10, 8), (12, 6)]
    groups = SliceDataset(cohort, ["recon/a", "kspace"], part=None).shape_groups()
    assert sorted(index for group in groups for index in group) == list(range(11))
    assert sorted(map(len, groups)) == [2, 4, 5]  # sub-04 goes with sub-01; sub-02 has other coils


@pytest.mark.parametrize(("n", "size"), [(7, 3), (5, 5), (3, 4), (1, 2), (8, 2)])
def test_every_sample_comes_once_per_pass(n, size):
    sampler = StepSampler(n, size, 10 * n, seed=2)
    drawn = [pair for batch in sampler for pair in batch]
    assert [len(batch) for batch in sampler] == [size] * len(sampler) == [size] * 10 * n
    for start in range(0, len(drawn) - n + 1, n):
        part = drawn[start : start + n]
        assert sorted(index for index, _ in part) == list(range(n))
        assert {draw for _, draw in part} == {start // n}
    assert len(set(drawn)) == len(drawn)  # no sample with the same random numbers twice
    if n > 3:
        assert [i for i, _ in drawn[:n]] != [i for i, _ in drawn[n : 2 * n]]


@pytest.mark.parametrize("groups", [None, [[0, 3, 5], [1, 2], [4, 6, 7, 8, 9]]])
def test_a_resumed_run_sees_the_batches_it_would_have_seen(groups):
    whole = list(StepSampler(10, 2, 40, seed=6, groups=groups))
    for start in (0, 1, 7, 39, 40):
        resumed = StepSampler(10, 2, 40, seed=6, start_step=start, groups=groups)
        assert list(resumed) == whole[start:]
        assert len(resumed) == 40 - start
    assert StepSampler(10, 2, 40, seed=6, groups=groups).batch(33) == whole[33]
    assert list(StepSampler(10, 2, 40, seed=7, groups=groups)) != whole


def test_batches_stay_within_their_group():
    groups = [[0, 3, 5], [1, 2], [4, 6, 7, 8, 9]]
    sampler = StepSampler(10, 2, 60, seed=0, groups=groups)
    per_pass = 2 + 1 + 3
    for step, batch in enumerate(sampler):
        assert len(batch) == 2
        assert any({index for index, _ in batch} <= set(group) for group in groups)
        assert {draw for _, draw in batch} == {step // per_pass}
    for start in range(0, 60, per_pass):
        counts = Counter(i for step in range(start, start + per_pass) for i, _ in sampler.batch(step))
        assert set(counts) == set(range(10))
        assert max(counts.values()) <= 2
    orders = {
        tuple(next(n for n, g in enumerate(groups) if b[0][0] in g) for b in list(sampler)[s : s + 6])
        for s in (0, 6, 12, 18)
    }
    assert len(orders) > 1  # the groups are shuffled, too


@pytest.mark.parametrize(
    "options", [{"n": 0}, {"batch_size": 0}, {"steps": 1, "start_step": 2}, {"start_step": -1}], ids=str
)
def test_samplers_that_cannot_be(options):
    with pytest.raises(ConfigError, match=r"sampler: expected n, batch_size >= 1 and 0 <= start_step <= steps, got n="):
        StepSampler(**{"n": 3, "batch_size": 1, "steps": 5, **options})


def test_windows_of_the_file_instead_of_copies(tiny):
    """Read-only samples hold the same; batches made of them are tensors of their own, here and in loaders."""
    copies = SliceDataset(tiny, ["kspace", "image/t1", "seg/tissue"], part=None)
    windows = SliceDataset(tiny, ["kspace", "image/t1", "seg/tissue"], part=None, writable=False)
    for one, other in zip(copies, windows, strict=True):
        for path in copies.elements:
            np.testing.assert_array_equal(one[path], other[path])
            assert one[path].flags.writeable
            assert not other[path].flags.writeable
    before = windows[0]["kspace"].copy()
    batch = collate_slices([windows[0], windows[1]])
    batch["kspace"] += 1
    lists = collate_slices([{"a": windows[0]["kspace"]}, {"a": windows[0]["kspace"][:1]}])
    lists["a"][0] += 1
    np.testing.assert_array_equal(windows[0]["kspace"], before)
    options = {"num_workers": 1, "multiprocessing_context": "forkserver", "collate_fn": collate_slices, "batch_size": 2}
    loaded = next(iter(DataLoader(windows, **options)))
    np.testing.assert_array_equal(loaded["kspace"][0], before)
    assert loaded["kspace"].is_shared()


def machine(monkeypatch, number):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


@pytest.mark.parametrize("scheduler", ["slurm", "slurm:4", "tcp://host:8786"])
def test_devices_of_other_machines_are_not_looked_for_here(monkeypatch, scheduler):
    machine(monkeypatch, 0)
    check_device("cuda", scheduler)
    check_device("cuda:3", scheduler)
    with pytest.raises(ConfigError, match="device: expected cpu, cuda"):
        check_device("tpu", scheduler)


@pytest.mark.parametrize("scheduler", ["sync", "local", "local:2"])
def test_devices_of_this_machine_are_counted(monkeypatch, scheduler):
    machine(monkeypatch, 2)
    for device in ("cpu", "cuda", "cuda:0", "cuda:1"):
        check_device(device, scheduler)
    with pytest.raises(ConfigError, match="device: expected cuda:0 to cuda:1 on this machine, got cuda:7"):
        check_device("cuda:7", scheduler)
    machine(monkeypatch, 0)
    check_device("cpu", scheduler)
    with pytest.raises(ConfigError, match="PyTorch finds no CUDA device on this machine"):
        check_device("cuda", scheduler)
