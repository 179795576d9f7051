"""Joint runs on a tiny cohort: learning, resuming, running from the checkpoint alone, one table for all methods."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from typer.testing import CliRunner

from mri_io.errors import ConfigError, ElementNotFoundError
from mri_io.schema import Provenance
from mri_io.store import create_cohort, open_cohort
from mri_io.testing import tiny_cohort
from mri_io.training import load_checkpoint
from mri_joint._cli import app
from mri_joint.config import InitConfig, RunConfig
from mri_joint.evaluate import evaluate, parse_methods
from mri_joint.run import run
from mri_joint.testing import tiny_config, tiny_starts
from mri_joint.training import JointTask, train
from mri_recon.networks import VarNet
from mri_recon.run import run as run_reconstruction
from mri_recon.stored_masks import MaskConfig
from mri_seg.run import run as run_segmentation

MASK = MaskConfig(name="equispaced", acceleration=2)
MADE = Provenance.of("mri-io", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A cohort of four subjects, and two untrained networks."""
    folder = tmp_path_factory.mktemp("joint")
    tiny_cohort(folder / "cohort")
    tiny_starts(folder)
    return folder


def configure(folder: Path, steps: int = 4, **fields) -> RunConfig:
    init = InitConfig(reconstruction=str(folder / "recon.ckpt"), segmentation=str(folder / "seg.ckpt"))
    return tiny_config(steps, init=init, **fields)


@pytest.fixture(scope="module")
def finished(folder):
    return train(folder / "cohort", configure(folder), folder / "run")


def test_a_run_describes_itself(folder, finished):
    checkpoint = load_checkpoint(finished.checkpoint, "joint")
    config = RunConfig.model_validate(checkpoint.config)
    assert config.labels == {1: "outer", 2: "inner"}
    assert checkpoint.split["test"] == ["sub-04"]
    assert set(checkpoint.packages) >= {"mri-io", "mri-recon", "mri-seg", "mri-joint", "torch", "monai"}
    columns = set(pandas.read_csv(finished.metrics).columns)
    assert columns >= {"train/loss", "train/sampled_fraction", "val/loss", "val/psnr", "val/dice"}
    assert columns >= {"lr/reconstruction", "lr/segmentation", "val/reconstruction_loss", "val/segmentation_loss"}


def test_the_curriculum_is_in_the_table_of_metrics(folder, finished):
    fractions = pandas.read_csv(finished.metrics)["train/sampled_fraction"].tolist()
    assert fractions[0] == pytest.approx(0.95, abs=0.03)
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[2] == pytest.approx(fractions[3], abs=0.05)


class StoppedError(Exception):
    """Ends a run in the middle."""


def test_interrupted_and_resumed_is_equal_to_the_bit(folder, finished, tmp_path: Path, monkeypatch):
    step = JointTask.training_step

    def stopping(self, batch, index):
        if self.global_step == 3:
            raise StoppedError
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(JointTask, "training_step", stopping)
        with pytest.raises(StoppedError):
            train(folder / "cohort", configure(folder), tmp_path / "run")
    resumed = train(folder / "cohort", configure(folder), tmp_path / "run")
    assert resumed.resumed_from == 3
    assert load_checkpoint(resumed.checkpoint).sha256 == load_checkpoint(finished.checkpoint).sha256
    assert resumed.metrics.read_bytes() == finished.metrics.read_bytes()


@pytest.mark.parametrize("frozen", ["reconstruction", "segmentation"])
def test_a_control_changes_one_network_only(folder, frozen: str):
    config = configure(folder, 2, **{f"train_{frozen}": False})
    result = train(folder / "cohort", config, folder / f"frozen-{frozen}")
    after = load_checkpoint(result.checkpoint)
    changed = {}
    for name, file in (("reconstruction", "recon.ckpt"), ("segmentation", "seg.ckpt")):
        before = load_checkpoint(folder / file).part("network")
        now = after.part(f"network.{name}")
        changed[name] = sum(not torch.equal(now[key], value) for key, value in before.items())
    assert changed.pop(frozen) == 0
    assert next(iter(changed.values())) > 10


def test_training_improves_a_tiny_cohort(folder, tmp_path: Path):
    """Sixty steps on two subjects: both the image and the segmentation of the training subjects get better."""
    fields = {"curriculum": {"epochs": 4}, "learning_rate": {"segmentation": 1e-2}}
    trained = train(folder / "cohort", configure(folder, 60, **fields), tmp_path / "long").checkpoint
    untrained = train(folder / "cohort", configure(folder, 1, curriculum=None), tmp_path / "short").checkpoint
    for name, checkpoint in (("before", untrained), ("after", trained)):
        assert run(folder / "cohort", checkpoint, mask=MASK, name=name, part="train").ok
    pairs = {name: (f"recon/{name}", f"seg/{name}") for name in ("before", "after")}
    table = evaluate(folder / "cohort", methods=pairs, part="train", name="overfit")["summary"]
    assert table["after"]["psnr"]["mean"] > table["before"]["psnr"]["mean"] + 3
    assert table["after"]["dice"]["mean"] > max(0.8, table["before"]["dice"]["mean"] + 0.3)


def test_the_checkpoint_alone_gives_what_the_two_networks_give(folder, tmp_path: Path):
    """Without a step of training, `joint run` equals `recon run` followed by `seg run`."""
    config = configure(
        folder,
        1,
        train_reconstruction=True,
        curriculum=None,
        learning_rate={
            "reconstruction": 1e-30,
            "segmentation": 1e-30,
        },
    )
    result = train(folder / "cohort", config, tmp_path / "run")
    moved = result.checkpoint.rename(tmp_path / "moved.ckpt")
    assert run(folder / "cohort", moved, mask=MASK, name="chain").ok
    assert run_reconstruction(folder / "cohort", checkpoint=folder / "recon.ckpt", mask=MASK, name="alone").ok
    assert run_segmentation(folder / "cohort", folder / "seg.ckpt", inputs=("recon/alone",), name="alone").ok
    for volume in open_cohort(folder / "cohort").volumes():
        chain = volume["recon/chain"]
        np.testing.assert_allclose(chain.numpy(), volume["recon/alone"].numpy(), rtol=1e-5, atol=1e-6)
        assert (volume["seg/chain"].numpy() == volume["seg/alone"].numpy()).mean() > 0.999
        assert volume["seg/chain"].labels == volume["seg/tissue"].labels
        assert volume["seg/chain"].provenance["inputs"] == [{"path": "recon/chain", "commit": chain.commit}]
        assert chain.provenance["weights_sha256"] == load_checkpoint(moved).sha256
        assert {item["path"] for item in chain.provenance["inputs"]} == {
            "kspace", "mask/equispaced-r2", "sens/espirit",
        }  # fmt: skip
        np.testing.assert_array_equal(chain.affine, volume["recon/reference"].affine)


def test_running_again_skips_and_another_network_is_refused(folder, finished):
    first = run(folder / "cohort", finished.checkpoint, mask=MASK, name="again", part="test")
    second = run(folder / "cohort", finished.checkpoint, mask=MASK, name="again", part="test")
    assert [row["status"] for row in first.results + second.results] == ["done", "skipped"]
    other = train(folder / "cohort", configure(folder, 2), folder / "run-two")
    refused = run(folder / "cohort", other.checkpoint, mask=MASK, name="again", part="test")
    assert not refused.ok
    assert "Choose another --name" in refused.failures[0].error
    assert run(folder / "cohort", other.checkpoint, mask=MASK, name="again", part="test", replace=True).ok


def test_the_result_is_named_after_the_mask_and_wrong_options_are_told_before_work(folder, finished):
    made = run(folder / "cohort", finished.checkpoint, mask=MaskConfig(name="random", seed=3), part="test")
    assert made.ok
    volume = open_cohort(folder / "cohort").volumes("default", "test")[0]
    assert {"recon/joint-random-r4-s3", "seg/joint-random-r4-s3"} <= set(volume.elements())
    for wrong, told in (({"device": "cdua"}, "device: expected cpu, cuda"), ({"name": "a/b"}, "--name: element path")):
        with pytest.raises(ConfigError, match=told):
            run(folder / "cohort", finished.checkpoint, mask=MASK, part="test", **wrong)


def changed_cohort(folder: Path, path: Path, change) -> Path:
    """Write the cohort anew with `change` made to each array of a volume."""
    made, source = create_cohort(path), open_cohort(folder / "cohort")
    for volume in source.volumes():
        with made.create_volume(volume.id, subject_id=volume.subject_id) as copy:
            for name in ("kspace", "sens/espirit", "recon/reference", "seg/tissue"):
                labels = volume[name].labels or None
                copy.write(name, change(name, volume[name].numpy()), provenance=MADE, labels=labels)
    made.write_split(source.split())
    return path


def test_slices_of_zeros_do_not_spoil_a_training(folder, tmp_path: Path):
    def emptied(name, data):
        data[0] = 0
        return data

    cohort = changed_cohort(folder, tmp_path / "empty", emptied)
    for size in (1, 2):
        config = configure(folder, 4)
        training = config.training.model_copy(update={"batch_size": size})
        result = train(cohort, config.model_copy(update={"training": training}), tmp_path / f"run{size}")
        assert "nan" not in result.metrics.read_text()
        assert "inf" not in result.metrics.read_text()
        weights = load_checkpoint(result.checkpoint).state_dict
        assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


def test_a_target_that_is_the_central_part_is_compared_with_that_part(folder, tmp_path: Path):
    def cut(name, data):
        return data[:, 4:28, 4:20] if name in ("recon/reference", "seg/tissue") else data

    cohort = changed_cohort(folder, tmp_path / "cut", cut)
    result = train(cohort, configure(folder, 2), tmp_path / "run")
    assert run(cohort, result.checkpoint, mask=MASK, name="cut", part="test").ok
    (volume,) = open_cohort(cohort).volumes("default", "test")
    assert volume["recon/cut"].shape == volume["seg/cut"].shape == (2, 32, 24)
    (row,) = evaluate(cohort, methods={"x": ("recon/cut", "seg/cut")})["rows"]
    truth = np.abs(volume["recon/reference"].numpy())
    error = np.mean((np.abs(volume["recon/cut"].numpy()[:, 4:28, 4:20]) - truth) ** 2)
    assert row["psnr"] == pytest.approx(10 * np.log10(truth.max() ** 2 / error), rel=1e-4)


def test_what_was_not_acquired_is_sampled_neither_in_training_nor_after(folder, tmp_path: Path, monkeypatch):
    acquired = np.zeros(24, np.uint8)
    acquired[1::2] = acquired[8:16] = 1

    cohort = changed_cohort(folder, tmp_path / "half", lambda name, x: x * acquired if name == "kspace" else x)
    for volume in open_cohort(cohort).volumes():
        volume.write("mask/acquired", acquired, dims=("kx",), provenance=MADE)
    seen = []
    forward = VarNet.forward

    def watched(self, kspace, mask, maps=None):
        seen.append(mask.numpy())
        return forward(self, kspace, mask, maps)

    monkeypatch.setattr(VarNet, "forward", watched)
    result = train(cohort, configure(folder, 4), tmp_path / "run")
    assert run(cohort, result.checkpoint, mask=MASK, name="half", part="test").ok
    assert len(seen) > 6
    assert not any((mask > acquired).any() for mask in seen)
    assert max(mask.sum(axis=-1).max() for mask in seen) == acquired.sum()  # where the curriculum begins
    (volume,) = open_cohort(cohort).volumes("default", "test")
    inputs = {item["path"] for item in volume["recon/half"].provenance["inputs"]}
    assert inputs == {"kspace", "mask/equispaced-r2", "mask/acquired", "sens/espirit"}
    assert volume["mask/equispaced-r2"].numpy().sum() > acquired.sum() / 2


def test_options_without_effect_are_refused(folder, finished, cli):
    command = ("joint", "run", folder / "cohort", "--checkpoint", finished.checkpoint)
    done = cli(*command, "--mask", "equispaced-r2", "--acceleration", 8)
    assert (done.status, done.out) == (2, "")
    assert "acceleration: expected only with a mask that is made" in done.err
    assert "trained with stored coil maps, got none" in cli(*command, "--maps", "none").err
    estimating = configure(folder, 1, curriculum=None)
    model = estimating.reconstruction.model_copy(update={"coil_maps": "estimated", "sens_channels": 2, "sens_pools": 1})
    estimating = estimating.model_copy(update={"reconstruction": model, "init": InitConfig()})
    network = train(folder / "cohort", estimating, folder / "run-estimating").checkpoint
    with pytest.raises(ConfigError, match=r"estimates its coil maps, got 'espirit'\. Leave --maps out"):
        run(folder / "cohort", network, maps="espirit")


def test_commands(folder, finished, tmp_path: Path):
    cohort = str(folder / "cohort")
    runner = CliRunner()
    config = tmp_path / "joint.yaml"
    config.write_text("training: {steps: 2, batch_size: 2, loggers: [csv], progress: false}\n")
    starts = [f"--set=init.{name}={folder / file}.ckpt" for name, file in
              (("reconstruction", "recon"), ("segmentation", "seg"))]  # fmt: skip
    printed = runner.invoke(app, ["train", cohort, "--config", str(config), *starts, "--print-config"])
    assert printed.exit_code == 0, printed.output
    assert "cascades: 2" in printed.output
    trained = runner.invoke(
        app, ["train", cohort, "--config", str(config), *starts, "--out", str(tmp_path / "run")], catch_exceptions=False
    )
    assert "after 2 steps" in trained.output
    checkpoint = str(tmp_path / "run/model.ckpt")
    options = ["--mask", "equispaced", "--acceleration", "2", "--part", "test", "--name", "cli"]
    done = runner.invoke(app, ["run", cohort, "--checkpoint", checkpoint, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    methods = ["--methods", "joint=recon/cli+seg/cli", "--methods", "oracle=recon/reference+seg/tissue"]
    table = runner.invoke(app, ["evaluate", cohort, *methods, "--name", "cli"], catch_exceptions=False)
    assert table.exit_code == 0, table.output
    summary = open_cohort(cohort).evaluations()["cli"]["summary"]
    assert summary["oracle"]["dice"]["mean"] == 1.0
    assert summary["oracle"]["f_mse"]["mean"] == 0.0
    assert summary["joint"]["psnr"]["n"] == 1


def test_the_table_has_a_column_per_class_and_no_claims(folder, finished):
    run(folder / "cohort", finished.checkpoint, mask=MASK, name="table", part="test")
    evaluation = evaluate(folder / "cohort", methods={"joint": ("recon/table", "seg/table")}, name="table")
    (row,) = evaluation["rows"]
    assert list(evaluation["metrics"]) == [
        "psnr", "ssim", "dice", "dice/outer", "dice/inner", "f_mse", "f_psnr", "f_ssim",
    ]  # fmt: skip
    assert row["dice"] == pytest.approx((row["dice/outer"] + row["dice/inner"]) / 2)
    assert evaluation["config"]["methods"] == {"joint": "recon/table + seg/table"}


def test_missing_elements_are_named(folder):
    with pytest.raises(ElementNotFoundError, match="sub-04_acq-tiny_run-1: recon/none"):
        evaluate(folder / "cohort", methods={"x": ("recon/none", "seg/tissue")})


@pytest.mark.parametrize(
    "methods", [[], ["joint"], ["a=recon/x"], ["a=seg/x+recon/y"], ["a=recon/x+seg/y", "a=recon/z+seg/y"]]
)
def test_methods_in_another_form_are_refused(methods: list[str]):
    with pytest.raises(ConfigError, match="--methods"):
        parse_methods(methods)


def test_methods_are_named_or_name_themselves():
    assert parse_methods(["a=recon/x+seg/y", "recon/x+seg/z"]) == {
        "a": ("recon/x", "seg/y"),
        "recon/x+seg/z": ("recon/x", "seg/z"),
    }
