"""The loop: resumed equals uninterrupted to the bit, equals plain torch, and reports what is wrong."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mri_io.config import load_config
from mri_io.errors import ConfigError, FormatError, MissingPackageError, NonFiniteError
from mri_io.testing.waiting import wait_until
from mri_io.training import load_checkpoint, set_seed
from mri_io.training.interruption import TrainingInterruptedError

SCRIPT = Path(__file__).with_name("training_toy.py")
spec = importlib.util.spec_from_file_location("training_toy", SCRIPT)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


def configure(*overrides: str):
    return load_config(toy.ToyConfig, overrides=["training.loggers=[csv]", *overrides])


class StoppedError(Exception):
    """Stands for anything that ends a process in the middle of a step."""


class Stopping(toy.ToyTask):
    def __init__(self, config, step: int) -> None:
        super().__init__(config)
        self.stop_at = step

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_step == self.stop_at:
            raise StoppedError
        return loss


def interrupt(out: Path, config, step: int) -> None:
    set_seed(config.training.seed)
    with pytest.raises(StoppedError):
        toy.run(out, config, task=Stopping(config, step))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    config = configure()
    set_seed(0)
    task = toy.ToyTask(config)
    result = toy.run(out, config, task=task)
    return result, task


def test_interrupted_twice_gives_the_same_bits(whole, tmp_path: Path):
    result, task = whole
    config = configure()
    interrupt(tmp_path / "run", config, 12)
    interrupt(tmp_path / "run", config, 30)
    # The initial weights of the last process must not matter: another seed for them.
    set_seed(99)
    resumed_task = toy.ToyTask(config)
    resumed = toy.run(tmp_path / "run", config, task=resumed_task)
    assert (resumed.resumed_from, resumed.steps) == (28, 40)
    assert load_checkpoint(resumed.checkpoint).sha256 == load_checkpoint(result.checkpoint).sha256
    assert resumed.metrics.read_bytes() == result.metrics.read_bytes()
    assert resumed_task.seen == task.seen[28 * 2 :]
    first, second = (torch.load(r.checkpoint.with_name("last.ckpt"), weights_only=True) for r in (result, resumed))
    assert_same(first, second)  # optimiser, schedule, average, callbacks


def test_ctrl_c_finishes_the_step_and_loses_nothing(whole, tmp_path: Path, monkeypatch):
    step = toy.ToyTask.training_step

    def pressing(self, batch, batch_idx):
        if self.global_step == 10 and not self.pressed:
            self.pressed = not again  # a batch is two halves: the second press comes before the step is done
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, batch_idx)

    again = False
    monkeypatch.setattr(toy.ToyTask, "pressed", False, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(toy.ToyTask, "training_step", pressing)
        with pytest.raises(TrainingInterruptedError, match="run: interrupted after step 11 of 40") as stopped:
            toy.run(tmp_path / "run", configure())
        again = True
        with pytest.raises(KeyboardInterrupt):
            toy.run(tmp_path / "at-once", configure())
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = toy.run(tmp_path / "run", configure())
    assert resumed.resumed_from == 11
    assert load_checkpoint(resumed.checkpoint).sha256 == load_checkpoint(whole[0].checkpoint).sha256
    assert resumed.metrics.read_bytes() == whole[0].metrics.read_bytes()


def assert_same(first, second) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_repeating_with_a_seed_gives_the_same_bits_and_another_seed_does_not(whole, tmp_path: Path):
    result, _ = whole
    again = toy.run(tmp_path / "again", configure())
    other = toy.run(tmp_path / "other", configure("training.seed=1"))
    hashes = [load_checkpoint(r.checkpoint).sha256 for r in (result, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
def test_loading_processes_do_not_change_the_result(whole, tmp_path: Path):
    result, _ = whole
    # The file is not importable by name in the workers, hence a process of its own. One validation saves time.
    settings = ["training.loggers=[csv]", "training.num_workers=2", "training.validate_every=40"]
    subprocess.run([sys.executable, SCRIPT, tmp_path / "run", *settings], check=True)
    assert load_checkpoint(tmp_path / "run/model.ckpt").sha256 == load_checkpoint(result.checkpoint).sha256


def test_files_of_a_run(whole):
    result, _ = whole
    folder = result.checkpoint.parent
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.yaml",
        "last.ckpt",
        "metrics.csv",
        "model.ckpt",
    ]
    assert load_config(toy.ToyConfig, folder / "config.yaml") == configure()
    steps = [line.split(",")[0] for line in result.metrics.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(5, 41, 5)]


def test_finished_run_returns_at_once(whole):
    result, _ = whole
    before = result.checkpoint.stat().st_mtime_ns
    task = toy.ToyTask(configure())
    again = toy.run(result.checkpoint.parent, configure("training.num_workers=1"), task=task)
    assert (again.steps, again.resumed_from, task.seen) == (40, 40, [])
    assert again.checkpoint.stat().st_mtime_ns == before
    assert_same(dict(task.state_dict()), load_checkpoint(result.checkpoint).state_dict)


def test_another_configuration_is_refused_with_the_keys(whole):
    result, _ = whole
    with pytest.raises(ConfigError, match=r"hidden: 8 -> 9\n  training.learning_rate: 0.001 -> 0.1\n"):
        toy.run(result.checkpoint.parent, configure("hidden=9", "training.learning_rate=0.1"))
    with pytest.raises(ConfigError, match="kind: recon -> seg"):
        toy.run(result.checkpoint.parent, configure(), kind="seg")


def test_another_split_is_refused(whole):
    result, _ = whole

    class Split:
        name, seed, train, val, test, hash = "other", 0, ["a"], ["b"], [], "1" * 64

    with pytest.raises(ConfigError, match=r"split: \(none\) -> other"):
        toy.run(result.checkpoint.parent, configure(), split=Split())


def test_damaged_last_checkpoint_is_named(tmp_path: Path):
    config = configure()
    interrupt(tmp_path / "run", config, 12)
    last = tmp_path / "run/last.ckpt"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(FormatError, match=r"last.ckpt: truncated"):
        toy.run(tmp_path / "run", config)


def test_plain_torch_gives_the_same_weights(tmp_path: Path):
    """Against a loop in plain torch: order of data, accumulation, clipping, AdamW, schedule and average."""
    from torch.optim.swa_utils import AveragedModel

    from mri_io.torch import StepSampler

    config = configure("dropout=0", "training.validate_every=0")
    result = toy.run(tmp_path / "run", config)
    set_seed(0)
    task, data = toy.ToyTask(config), toy.ToyData()
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3, weight_decay=0.01)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: (s + 1) / 4 if s < 3 else 1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37)
    average = AveragedModel(task.net, avg_fn=lambda a, c, n: torch.lerp(a, c, 1 - min(0.99, (1 + n) / (10 + n))))
    batches = iter(StepSampler(len(data), 4, 80, 0))
    for step in range(40):
        for _ in range(2):
            batch = toy.collate([data[item] for item in next(batches)])
            (((task.net(batch["x"]) - batch["y"]) ** 2).mean() / 2).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        (warm if step < 3 else cosine).step()
        average.update_parameters(task.net)
    expected = average.module.state_dict()
    found = load_checkpoint(result.checkpoint).part("net")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path):
    """With a rate far too high the validation gets worse: the run stops and returns to its best weights."""
    overrides = ("training.patience=2", "training.learning_rate=3.0", "training.schedule=constant",
                 "training.ema_decay=null", "training.validate_every=1", "training.steps=60")  # fmt: skip
    result = toy.run(tmp_path / "run", configure(*overrides))
    import pandas

    losses = pandas.read_csv(result.metrics)["val/loss"].dropna()
    best = int(losses.idxmin())
    assert result.steps < 60
    assert load_checkpoint(result.checkpoint).step == best + 1
    assert result.steps == best + 1 + 2
    assert not (tmp_path / "run/best.ckpt").exists()
    assert toy.run(tmp_path / "run", configure(*overrides)).resumed_from == best + 1


def test_best_weights_survive_an_interruption(tmp_path: Path):
    overrides = ("training.select=best", "training.learning_rate=0.5", "training.validate_every=3")
    config = configure(*overrides)
    whole = toy.run(tmp_path / "whole", config)
    interrupt(tmp_path / "run", config, 20)
    resumed = toy.run(tmp_path / "run", config)
    first, second = load_checkpoint(whole.checkpoint), load_checkpoint(resumed.checkpoint)
    assert (first.sha256, first.step) == (second.sha256, second.step)


def test_a_metric_that_is_not_logged_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"val/loss.*got 'val/dice'"):
        toy.run(tmp_path / "run", configure(), monitor="val/dice")


def test_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    with pytest.raises(NonFiniteError, match=r"training loss at step 15: expected a finite number, got nan"):
        toy.run(tmp_path / "run", configure("poison_step=12", "training.checkpoint_every=50"))
    assert not (tmp_path / "run/model.ckpt").exists()


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path):
    with pytest.raises(NonFiniteError, match=r"weights at step 14: \S+: expected finite numbers"):
        toy.run(tmp_path / "run", configure("poison_step=12", "training.log_every=50", "training.checkpoint_every=7"))
    weights = load_checkpoint(tmp_path / "run/last.ckpt").state_dict
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert load_checkpoint(tmp_path / "run/last.ckpt").step == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
@pytest.mark.parametrize(
    "settings", [("training.accelerator=gpu",), ("training.accelerator=cuda", "training.devices=2")]
)
def test_a_device_that_is_not_there_is_named_before_training(tmp_path: Path, settings: tuple[str, ...]):
    with pytest.raises(ConfigError, match=r"training\.accelerator: (gpu|cuda).* finds 0 CUDA device"):
        toy.run(tmp_path / "run", configure(*settings))


def test_missing_logger_is_an_error_before_training(tmp_path: Path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a))
    with pytest.raises(MissingPackageError, match="pip install wandb"):
        toy.run(tmp_path / "run", load_config(toy.ToyConfig, overrides=["training.loggers=[wandb]"]))


def test_batches_must_divide_over_devices():
    from mri_io.training.loaders import TrainBatches

    batches = TrainBatches(toy.ToyData(), configure().training, toy.collate, lambda: (0, 3), 0)
    with pytest.raises(ConfigError, match="multiple of the 3 devices, got 4"):
        iter(batches)


def test_ranks_share_every_batch_and_the_validation_samples():
    from mri_io.training.loaders import TrainBatches, ValidationBatches

    settings = configure("training.steps=5").training

    def indices(loader):
        return [batch["index"].tolist() for batch in loader]

    one, first, second = (
        indices(TrainBatches(toy.ToyData(), settings, toy.collate, lambda r=rank: r, 0))
        for rank in ((0, 1), (0, 2), (1, 2))
    )
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in one]
    shares = [indices(ValidationBatches(toy.ToyData(5), settings, toy.collate, lambda r=r: (r, 2))) for r in (0, 1)]
    assert sorted(index for share in shares for batch in share for index in batch) == [0, 1, 2, 3, 4]


def test_plain_lines_with_rate_and_time_left(tmp_path: Path, capfd):
    toy.run(tmp_path / "run", configure("training.progress=true"))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "run: 40 steps, from the start"
    assert len(lines) == 11
    assert lines[-1].startswith("run: step 40/40, ")
    assert "steps/s" in lines[-1]
    assert "train/loss" in lines[-1]


def test_a_run_leaves_process_wide_settings_as_they_were(tmp_path: Path):
    threads = torch.get_num_threads()
    toy.run(tmp_path / "run", configure(f"training.threads={threads + 1}", "training.steps=20"))
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_tensorboard_events_have_the_metrics_once_per_step(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = load_config(toy.ToyConfig)
    interrupt(tmp_path / "run", config, 12)
    toy.run(tmp_path / "run", config)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    steps = [event.step for event in events.Scalars("val/loss")]
    assert steps == [10, 20, 30, 40]


@pytest.mark.slow
def test_sigkill_at_random_moments_and_rerun_gives_the_same_bits(whole, tmp_path: Path):
    result, _ = whole
    out = tmp_path / "run"
    command = [sys.executable, SCRIPT, out, "training.loggers=[csv]", "training.checkpoint_every=3"]
    rng, table = np.random.default_rng(0), out / "metrics.csv"
    for _ in range(2):
        before = table.stat().st_mtime_ns if table.exists() else 0
        process = subprocess.Popen([*command, "--sleep", "0.02"])  # slow beside the time until it is killed
        wait_until(lambda seen=before: table.exists() and table.stat().st_mtime_ns > seen, process)
        time.sleep(rng.uniform(0.05, 0.8))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for path in out.glob("*.ckpt"):
            load_checkpoint(path)  # whole or absent
    subprocess.run(command, check=True)
    assert load_checkpoint(out / "model.ckpt").sha256 == load_checkpoint(result.checkpoint).sha256
    assert (out / "metrics.csv").read_bytes() == result.metrics.read_bytes()


@pytest.mark.slow
def test_two_processes_on_the_cpu_train_as_one(tmp_path: Path):
    """DDP: the shares of a batch together give its gradient. Without batch norm, which is per device."""
    common = ["training.loggers=[csv]", "dropout=0", "batch_norm=false", "training.accelerator=cpu"]
    for devices in ("1", "2"):
        subprocess.run(
            [sys.executable, SCRIPT, tmp_path / devices, *common, f"training.devices={devices}"],
            check=True,
        )
    one, two = (load_checkpoint(tmp_path / name / "model.ckpt").state_dict for name in ("1", "2"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
    tables = [(tmp_path / name / "metrics.csv").read_text().splitlines() for name in ("1", "2")]
    assert [line.split(",")[0] for line in tables[0]] == [line.split(",")[0] for line in tables[1]]
    last = [float(table[-1].split(",")[-1]) for table in tables]
    assert last[0] == pytest.approx(last[1], rel=1e-4)


def test_bar_on_a_terminal(tmp_path: Path, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    toy.run(tmp_path / "run", configure("training.progress=true"))
    text = capfd.readouterr().err
    assert "40/40" in text
    assert "steps/s" in text
    assert "val/loss" in text
