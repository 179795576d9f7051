"""The chain of two networks: gradients, freezing, warm start, and equality with the two networks one after another."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.config import dump_config
from mri_io.errors import ConfigError, FormatError, ShapeError
from mri_io.training import TrainingConfig, load_checkpoint, save_checkpoint
from mri_joint.config import CurriculumConfig, DataConfig, InitConfig, RunConfig
from mri_joint.data import ExampleTransform, undersample
from mri_joint.models import build_network, warm_start
from mri_joint.resolve import load_run_config
from mri_joint.testing import tiny_config, tiny_starts
from mri_joint.training import JointTask
from mri_recon.data import ExampleTransform as ReconTransform
from mri_recon.inference import load_network as load_reconstruction
from mri_seg.inference import load_network as load_segmentation

LABELS = {1: "outer", 2: "inner"}


def sample(seed: int = 0, ny: int = 24, nx: int = 20, coils: int = 3) -> dict:
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    maps = noise(1, coils, ny, nx)
    return {
        "kspace": noise(coils, ny, nx),
        "sens/espirit": maps / np.sqrt((np.abs(maps) ** 2).sum(axis=1, keepdims=True)),
        "recon/reference": noise(ny, nx),
        "seg/tissue": rng.integers(0, 3, (ny, nx)).astype(np.uint8),
        "volume_id": "sub-01",
        "slice": 0,
    }


def batch(config: RunConfig, n: int = 2) -> dict:
    transform = ExampleTransform(config)
    examples = [transform(sample(seed), np.random.default_rng(seed)) for seed in range(n)]
    return {
        key: torch.stack([e[key] for e in examples]) if key != "volume_id" else [e[key] for e in examples]
        for key in examples[0]
    }


def step(config: RunConfig) -> JointTask:
    task = JointTask(config)
    inputs = undersample(batch(config), batch(config)["mask"])
    task.losses(task(inputs), inputs)["loss"].backward()
    return task


def test_every_parameter_of_both_networks_gets_a_gradient():
    task = step(tiny_config(labels=LABELS))
    without = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A bias before an instance normalisation is cancelled by it; the first cascade starts from the measured data.
    assert [n for n in without if not n.endswith("conv.bias")] == ["network.reconstruction.cascades.0.dc_weight"]


def test_the_segmentation_loss_alone_reaches_the_reconstruction():
    loss = {"reconstruction_weight": 0.0}
    task = step(tiny_config(labels=LABELS, loss=loss))
    without = [n for n, p in task.network.reconstruction.named_parameters() if not p.grad.abs().max() > 0]
    assert without == ["cascades.0.dc_weight"]


@pytest.mark.parametrize(("frozen", "free"), [("reconstruction", "segmentation"), ("segmentation", "reconstruction")])
def test_switches_freeze_exactly_one_network(frozen: str, free: str):
    config = tiny_config(labels=LABELS, **{f"train_{frozen}": False})
    task = step(config)
    assert all(p.grad is None for p in getattr(task.network, frozen).parameters())
    assert all(p.grad is not None for p in getattr(task.network, free).parameters())
    groups = task.configure_optimizers()["optimizer"].param_groups
    assert [group["name"] for group in groups] == [free]
    assert sum(len(group["params"]) for group in groups) == len(list(getattr(task.network, free).parameters()))
    task.train()
    task.on_train_start()
    assert not getattr(task.network, frozen).training
    assert getattr(task.network, free).training


def test_learning_rates_of_the_two_networks():
    task = JointTask(tiny_config(labels=LABELS, learning_rate={"segmentation": 0.5}))
    groups = task.configure_optimizers()["optimizer"].param_groups
    assert {group["name"]: group["lr"] for group in groups} == {"reconstruction": 3e-3, "segmentation": 0.5}


def test_output_is_that_of_the_two_networks_one_after_the_other(tmp_path: Path):
    paths = tiny_starts(tmp_path, seed=3)
    config = tiny_config(labels=LABELS, init=InitConfig(reconstruction=str(paths[0]), segmentation=str(paths[1])))
    network = build_network(config).eval()
    warm_start(network, config)
    inputs = undersample(batch(config), batch(config)["mask"])
    reconstruction, segmentation = load_reconstruction(paths[0])[0], load_segmentation(paths[1])[0]
    with torch.inference_mode():
        output = network(inputs["kspace"], inputs["mask"], inputs["maps"])
        image = reconstruction(inputs["kspace"], inputs["mask"], inputs["maps"]).image
        logits = segmentation(image.abs()[:, None])
    assert torch.equal(output.image, image)
    assert torch.equal(output.logits, logits)
    assert image.abs().max() > 0


def test_one_sample_does_not_depend_on_its_batch():
    config = tiny_config(labels=LABELS)
    network = build_network(config).eval()
    both = undersample(batch(config, 2), batch(config, 2)["mask"])
    with torch.inference_mode():
        together = network(both["kspace"], both["mask"], both["maps"])
        alone = network(both["kspace"][:1], both["mask"][:1], both["maps"][:1])
    torch.testing.assert_close(together.image[:1], alone.image)
    torch.testing.assert_close(together.logits[:1], alone.logits, rtol=1e-4, atol=1e-5)


def test_undersampling_gives_the_example_of_a_reconstruction_run():
    config = tiny_config(labels=LABELS)
    made = undersample(batch(config, 1), batch(config, 1)["mask"])
    expected = ReconTransform(config.data, with_maps=True)(sample(0), np.random.default_rng(0))
    for key in ("kspace", "mask", "maps", "target", "peak"):
        torch.testing.assert_close(made[key][0], expected[key])


def test_curriculum_starts_nearly_complete_and_ends_at_the_target_mask():
    config = tiny_config(100, labels=LABELS, curriculum=CurriculumConfig(epochs=4, steps_per_epoch=1, epsilon=0.0))
    task = JointTask(config)
    target = batch(config)["mask"]
    full, fraction = task._curriculum_mask(target, torch.ones_like(target))
    assert fraction == 1.0
    assert full.min() == 1
    task.config = config.model_copy(update={"curriculum": None})
    unchanged, fraction = task._curriculum_mask(target, torch.ones_like(target))
    assert torch.equal(unchanged, target)
    assert fraction == pytest.approx(float(target.mean()))


def test_configuration_comes_from_the_checkpoints_below_file_and_overrides(tmp_path: Path):
    paths = tiny_starts(tmp_path)
    recon = load_checkpoint(paths[0])
    data = recon.config["data"] | {"sampling": {"mask": "random", "acceleration": 6.0, "center_fraction": 0.1}}
    save_checkpoint(paths[0], recon.state_dict, kind="recon", config=recon.config | {"data": data})
    file = tmp_path / "joint.yaml"
    file.write_text(f"init: {{reconstruction: {paths[0]}, segmentation: {paths[1]}}}\n")
    config = load_run_config(file, ["data.sampling.acceleration=5"])
    assert config.data == DataConfig.model_validate(data | {"sampling": data["sampling"] | {"acceleration": 5.0}})
    assert config.reconstruction.model_dump(mode="json") == recon.config["model"]
    assert config.labels == LABELS
    assert config.init.reconstruction_sha256 == recon.sha256
    assert load_run_config(None, [f"init.reconstruction={paths[0]}"]).labels is None
    written = tmp_path / "resolved.yaml"
    written.write_text(dump_config(config))
    assert load_run_config(written) == config


def test_a_start_that_does_not_fit_is_refused(tmp_path: Path):
    paths = tiny_starts(tmp_path)
    init = InitConfig(segmentation=str(paths[1]))
    config = tiny_config(labels={1: "outer", 2: "rim"}, init=init)
    with pytest.raises(ConfigError, match=r"seg.ckpt: init.segmentation: expected .*rim.*got .*inner"):
        warm_start(build_network(config), config)
    swapped = InitConfig(reconstruction=str(paths[1]))
    with pytest.raises(FormatError, match="expected recon, got seg"):
        warm_start(build_network(config), tiny_config(labels=LABELS, init=swapped))
    stale = InitConfig(segmentation=str(paths[1]), segmentation_sha256="0" * 64)
    with pytest.raises(ConfigError, match="replaced after the run began"):
        warm_start(build_network(config), tiny_config(labels=LABELS, init=stale))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_reconstruction": False, "train_segmentation": False}, "at least one of them true"),
        ({"curriculum": CurriculumConfig(epochs=2, steps_per_epoch=2)}, "no step would see the target mask"),
    ],
)
def test_runs_without_sense_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RunConfig(training=TrainingConfig(steps=4), **fields)


def test_target_and_labels_are_on_one_grid():
    config = tiny_config(labels=LABELS)
    inputs = undersample(batch(config), batch(config)["mask"])
    with pytest.raises(ShapeError, match=r"labels: expected the target's \(24, 20\), got \(24, 18\)"):
        JointTask(config)(inputs | {"labels": inputs["labels"][..., 1:-1]})
    with pytest.raises(ShapeError, match=r"target: expected a grid no larger .*24 x 20, got 24 x 22"):
        JointTask(config)(inputs | {key: torch.zeros(2, 24, 22) for key in ("target", "labels")})


def test_a_network_needs_labels():
    with pytest.raises(ConfigError, match="labels: expected ids and names"):
        build_network(tiny_config())


def test_views_are_changed_copies_with_their_labels():
    """A flip alone: every view is the image or its mirror image, the labels turned with it, both kinds occur."""
    nothing = {"rotate_degrees": 0.0, "scale": 0.0, "shift": 0.0, "gamma": 0.0}
    task = JointTask(tiny_config(labels=LABELS, data={"augment": {"flip_x": 0.5, **nothing}, "views": 8}))
    images = torch.rand(2, 24, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.randint(0, 3, (2, 24, 20), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    views, moved = task._views(images, labels)
    assert views.shape == moved.shape == (16, 24, 20)
    mirrored = []
    for number in range(16):
        image, label = images[number // 8], labels[number // 8]
        flipped = not torch.allclose(views[number], image, atol=1e-5)
        torch.testing.assert_close(views[number], image.flip(-1) if flipped else image, rtol=0, atol=1e-5)
        assert torch.equal(moved[number], label.flip(-1) if flipped else label)
        mirrored.append(flipped)
    assert 0 < sum(mirrored) < 16
    views.sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 8.0))


def test_several_equal_views_are_refused():
    with pytest.raises(ConfigError, match=r"data\.views: expected data\.augment with more than one view"):
        load_run_config(None, ["data.views=3"])


@pytest.mark.parametrize("package", ["mri-recon", "mri-joint"])
def test_what_is_imported_is_a_declared_dependency(package: str):
    """The other packages of an environment hide what a package alone would lack."""
    folder = Path(__file__).parents[2] / package
    declared = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    known = {re.split(r"[^A-Za-z0-9-]", text)[0].replace("-", "_") for text in (package, *declared)}
    imported = set()
    for file in folder.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    assert "torch" in imported
    assert imported - sys.stdlib_module_names <= known
