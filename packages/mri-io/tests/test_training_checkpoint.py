"""Checkpoints: self-describing, readable without pickled code, clear errors, atomic."""

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mri_io.config import Config
from mri_io.errors import FormatError, VersionError
from mri_io.training import TrainingConfig, load_checkpoint, save_checkpoint, weights_hash
from mri_io.training import checkpoint as module


class Run(Config):
    width: int = 4
    training: TrainingConfig = TrainingConfig()


@dataclass(frozen=True)
class Split:
    name: str = "default"
    seed: int = 3
    train: tuple[str, ...] = ("a", "b")
    val: tuple[str, ...] = ("c",)
    test: tuple[str, ...] = ("d",)
    hash: str = "0" * 64


STATE = {
    "net.weight": torch.arange(6.0).reshape(2, 3),
    "net.scale": torch.tensor(2.0),
    "other.phase": torch.tensor([1 + 2j]),
    "other.count": torch.tensor(3),
    "other.empty": torch.zeros(0),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model.ckpt", STATE, kind="recon", config=Run(), split=Split(), step=7)


def test_round_trip_tells_everything_about_the_run(path: Path):
    checkpoint = load_checkpoint(path, "recon")
    assert (checkpoint.kind, checkpoint.step) == ("recon", 7)
    assert Run.model_validate(checkpoint.config) == Run()
    assert checkpoint.packages["torch"] == str(torch.__version__)
    assert checkpoint.packages["mri-io"]
    assert checkpoint.split == {
        "name": "default",
        "seed": 3,
        "train": ["a", "b"],
        "val": ["c"],
        "test": ["d"],
        "hash": "0" * 64,
    }
    assert checkpoint.state_dict.keys() == STATE.keys()
    assert all(torch.equal(checkpoint.state_dict[name], value) for name, value in STATE.items())
    assert checkpoint.part("net").keys() == {"weight", "scale"}


def test_plain_torch_reads_it_without_running_code(path: Path):
    content = torch.load(path, weights_only=True)
    assert content["mri"]["format_version"] == 1
    assert torch.equal(content["state_dict"]["net.weight"], STATE["net.weight"])


def test_hash_of_the_weights_is_that_of_their_bytes():
    digest = hashlib.sha256()
    digest.update(b"a|torch.float32|(2,)|" + struct.pack("<2f", 1.5, -2.0))
    digest.update(b"b|torch.int64|()|" + struct.pack("<q", 3))
    assert weights_hash({"b": torch.tensor(3), "a": torch.tensor([1.5, -2.0])}) == digest.hexdigest()


def test_hash_depends_on_weights_only(tmp_path: Path, path: Path):
    other = save_checkpoint(tmp_path / "another.ckpt", dict(reversed(STATE.items())), kind="seg", config={})
    assert load_checkpoint(other).sha256 == load_checkpoint(path).sha256
    changed = save_checkpoint(other, STATE | {"net.scale": torch.tensor(2.5)}, kind="seg", config={})
    assert load_checkpoint(changed).sha256 != load_checkpoint(path).sha256
    assert load_checkpoint(changed).split == {}


def test_wrong_kind(path: Path):
    with pytest.raises(FormatError, match=r"model.ckpt: checkpoint kind: expected seg, got recon. Use the recon"):
        load_checkpoint(path, "seg")


def test_missing_part_lists_what_there_is(path: Path):
    with pytest.raises(FormatError, match=r"expected names unet\.\*, got net, other"):
        load_checkpoint(path).part("unet")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_truncated(path: Path, keep: int):
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(FormatError, match=r"model.ckpt: truncated or not a checkpoint"):
        load_checkpoint(path)


def test_missing(tmp_path: Path):
    with pytest.raises(FormatError, match=r"none.ckpt: no such checkpoint file"):
        load_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("content", [STATE, {"state_dict": STATE}, [1, 2], {"mri": {"kind": "recon"}}])
def test_foreign(tmp_path: Path, content):
    torch.save(content, tmp_path / "foreign.pt")
    with pytest.raises(FormatError, match=r"foreign.pt: checkpoint keys: expected mri, state_dict"):
        load_checkpoint(tmp_path / "foreign.pt")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"mri": Evil(), "state_dict": {}}, "evil.ckpt")
    with pytest.raises(FormatError, match=r"evil.ckpt"):
        load_checkpoint("evil.ckpt")
    assert not Path("evil").exists()


def test_newer_format(path: Path):
    content = torch.load(path, weights_only=True)
    content["mri"]["format_version"] = 2
    torch.save(content, path)
    with pytest.raises(VersionError, match=r"checkpoint format: expected at most 1, got 2.*upgrade mri-io"):
        load_checkpoint(path)


def test_a_failed_writing_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch):
    before = path.read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, STATE, kind="seg", config=Run())
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["model.ckpt"]
