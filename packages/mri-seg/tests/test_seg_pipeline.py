"""Networks, training and the commands on a tiny cohort."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io import open_cohort
from mri_io.config import load_config
from mri_io.errors import ConfigError
from mri_io.schema import Provenance
from mri_io.testing import tiny_cohort
from mri_seg.config import AugmentConfig, LossConfig, MonaiUnetConfig, RunConfig
from mri_seg.data import augment
from mri_seg.errors import ElementNotFoundError, ShapeError
from mri_seg.evaluate import evaluate
from mri_seg.inference import load_network, predict
from mri_seg.losses import SegmentationLoss
from mri_seg.networks import build_network, normalise_images
from mri_seg.run import run
from mri_seg.training import SegmentationTask, label_names, train


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cohort(tmp_path_factory.mktemp("seg") / "cohort", subjects=5, slices=3, matrix=(40, 36)).path


SETTINGS = ["model.widths=[8,16,32]", "model.residual_units=1", "training.batch_size=4", "training.learning_rate=0.01"]
SETTINGS += ["training.loggers=[csv]", "training.progress=false", "training.val_batch_size=4"]


def config(steps: int, *more: str) -> RunConfig:
    return load_config(RunConfig, None, [*SETTINGS, f"training.steps={steps}", "training.validate_every=0", *more])


@pytest.fixture(scope="module")
def checkpoint(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "unet"
    return train(cohort, config(80, "data.augment=null"), out).checkpoint


def network(channels: int = 1, labels: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(MonaiUnetConfig(widths=(8, 16, 32)), channels=channels, labels=labels).eval()


def test_scores_keep_the_grid_whatever_its_size_and_ignore_the_batch() -> None:
    net, images = network(), torch.rand(3, 1, 37, 29)
    with torch.inference_mode():
        together, alone = net(images), net(images[1:2])
    assert together.shape == (3, 3, 37, 29)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_normalisation_ignores_scale_and_passes_gradients() -> None:
    images = torch.rand(2, 1, 9, 8)
    torch.testing.assert_close(normalise_images(images), normalise_images(1e-6 * images), rtol=1e-3, atol=1e-3)
    assert torch.isfinite(normalise_images(torch.zeros(1, 1, 4, 4))).all()
    images.requires_grad_()
    network()(images).square().sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_every_parameter_gets_a_gradient() -> None:
    net = network().train()
    loss = SegmentationLoss(LossConfig())(net(torch.rand(2, 1, 32, 32)), torch.randint(0, 3, (2, 32, 32)))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_channels_are_checked() -> None:
    with pytest.raises(ShapeError, match="expected 1 channels, got 2"):
        network()(torch.rand(1, 2, 16, 16))


def test_sliding_windows_larger_than_the_image_change_nothing() -> None:
    net, images = network(), torch.rand(2, 1, 32, 24)
    whole = predict(net, images)
    windows = predict(net, images, window=(32, 24))
    assert torch.equal(whole, windows)
    assert predict(net, images, window=(16, 16)).shape == (2, 32, 24)


def test_augmentation_moves_image_and_labels_together_and_is_seeded() -> None:
    labels = torch.zeros(40, 36, dtype=torch.long)
    labels[10:28, 8:20] = 1
    image = labels[None].float()
    setting = AugmentConfig(gamma=0.0)
    moved, map_ = augment(image, labels, setting, np.random.default_rng(3))
    again, _ = augment(image, labels, setting, np.random.default_rng(3))
    assert torch.equal(moved, again)
    assert not torch.equal(map_, labels)
    assert float(((moved[0] > 0.5) == (map_ == 1)).float().mean()) > 0.99
    still = AugmentConfig(flip_x=0, rotate_degrees=0, scale=0, shift=0, gamma=0)
    same, unmoved = augment(image, labels, still, np.random.default_rng(0))
    torch.testing.assert_close(same, image, rtol=1e-4, atol=1e-4)
    assert torch.equal(unmoved, labels)


def test_training_learns_and_the_checkpoint_is_all_that_run_needs(cohort: Path, checkpoint: Path) -> None:
    summary = run(cohort, checkpoint, name="unet", part="test")
    assert (summary.count("done"), summary.failures) == (1, [])
    assert run(cohort, checkpoint, name="unet", part="test").count("skipped") == 1
    volume = open_cohort(cohort).volumes("default", "test")[0]
    made = volume["seg/unet"]
    np.testing.assert_array_equal(made.affine, volume["recon/reference"].affine)
    assert made.labels == volume["seg/tissue"].labels
    assert made.provenance["weights_sha256"]
    assert made.provenance["inputs"][0]["commit"] == volume["recon/reference"].commit
    table = evaluate(cohort, reference="seg/tissue", methods=["seg/unet"], part="test")
    assert table["summary"]["seg/unet"]["dice"]["mean"] > 0.9
    assert table["metrics"]["hd95"]["unit"] == "mm"
    assert {row["label"] for row in table["rows"]} == {"outer", "inner"}


def test_a_result_of_other_weights_is_not_overwritten_unasked(cohort: Path, checkpoint: Path, tmp_path: Path) -> None:
    run(cohort, checkpoint, name="kept", part="test")
    other = train(cohort, config(2, "training.seed=5"), tmp_path / "other").checkpoint
    refused = run(cohort, other, name="kept", part="test")
    assert "--replace" in refused.failures[0].error
    assert run(cohort, other, name="kept", part="test", replace=True).count("done") == 1


def test_a_seed_makes_a_run_repeatable_and_an_interrupted_one_continues(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(out: Path) -> dict[str, torch.Tensor]:
        return load_network(out / "model.ckpt")[0].state_dict()

    train(cohort, config(6), tmp_path / "a")
    step = SegmentationTask.training_step

    def stopping(self: SegmentationTask, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        if self.global_step == 4:
            raise InterruptedError
        return step(self, batch, index)

    often = "training.checkpoint_every=2"
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", stopping)
        with pytest.raises(InterruptedError):
            train(cohort, config(6, often), tmp_path / "b")
    assert train(cohort, config(6, often), tmp_path / "b").resumed_from == 4
    assert all(torch.equal(v, weights(tmp_path / "b")[k]) for k, v in weights(tmp_path / "a").items())
    train(cohort, config(6, "training.seed=1"), tmp_path / "c")
    assert any(not torch.equal(v, weights(tmp_path / "c")[k]) for k, v in weights(tmp_path / "a").items())


def test_what_is_missing_is_named(cohort: Path, checkpoint: Path) -> None:
    with pytest.raises(ElementNotFoundError, match="seg/nothing"):
        evaluate(cohort, reference="seg/tissue", methods=["seg/nothing"])
    failed = run(cohort, checkpoint, inputs=("recon/nothing",), name="x", part="test")
    assert "recon/nothing" in failed.failures[0].error
    for wrong, told in (({"device": "cdua"}, "device: expected cpu, cuda"), ({"name": "a/b"}, "--name: element path")):
        with pytest.raises(ConfigError, match=told):
            run(cohort, checkpoint, inputs=("recon/reference",), part="test", **wrong)
    with pytest.raises(ConfigError, match="unknown key"):
        config(2, "model.width=3")


def relabelled(path: Path, names: list[dict[int, str]], known: list[bool]) -> Path:
    """Make a cohort whose volumes have the label map seg/other with these names, with or without its affine."""
    cohort = tiny_cohort(path, subjects=len(names))
    for volume, labels, placed in zip(cohort.volumes(), names, known, strict=True):
        data = np.minimum(volume["seg/tissue"].numpy(), max(labels)).astype(np.uint8)
        made = Provenance.of("test", "relabel")
        affine = volume["seg/tissue"].affine if placed else None
        volume.write("seg/other", data, dims=("slice", "y", "x"), labels=labels, affine=affine, provenance=made)
    return cohort.path


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    mixed = [{1: "grey", 2: "white"}, {1: "white", 2: "grey"}, {1: "grey"}, {1: "grey"}]
    cohort = relabelled(tmp_path / "mixed", mixed, [True] * 4)
    with pytest.raises(ConfigError, match=r"seg/other: label 1 is 'grey' in \S+ and 'white' in"):
        label_names(cohort, "seg/other", "default")
    more = [{1: "grey"}, {1: "grey"}, {1: "grey", 2: "white"}, {1: "grey"}]
    cohort = relabelled(tmp_path / "more", more, [True] * 4)
    with pytest.raises(ConfigError, match=r"expected the labels \[1\] of the training, got also \[2\]"):
        train(cohort, config(2, "data.labels=seg/other"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"expected ids 1, 2, \.\.\. without gaps, got \[2\]"):
        config(2, "labels={2: white}")


def test_distances_in_pixels_and_in_millimetres_are_not_averaged(tmp_path: Path) -> None:
    names = [{1: "grey", 2: "white"}] * 2
    mixed = relabelled(tmp_path / "mixed", names, [False, True])
    with pytest.raises(ConfigError, match="1 of 2 have none"):
        evaluate(mixed, reference="seg/other", methods=["seg/tissue"], part=None)
    pixels = relabelled(tmp_path / "pixels", names, [False, False])
    table = evaluate(pixels, reference="seg/other", methods=["seg/tissue"], part=None)
    assert table["metrics"]["hd95"]["unit"] == "pixel"
