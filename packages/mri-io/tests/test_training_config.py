"""Training configuration: consistency and what counts as another run. No torch is needed to read it."""

import subprocess
import sys

import pytest

from mri_io.config import Config, load_config
from mri_io.errors import ConfigError
from mri_io.training.config import TrainingConfig, differing_keys


class Run(Config):
    width: int = 4
    training: TrainingConfig = TrainingConfig()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.warmup_steps=1000"], "fewer than steps"),
        (["training.schedule=onecycle", "training.warmup_steps=2"], "onecycle has its own rise"),
        (["training.devices=0"], "devices: expected at least 1"),
        (["training.steps=0"], "greater than 0"),
        (["training.ema_decay=1.0"], "less than 1"),
        (["training.loggers=[comet]"], "training.loggers.0"),
        (["training.time=60"], "unknown key"),
    ],
)
def test_inconsistent_settings_are_refused(overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(Run, None, overrides)


def test_best_weights_are_kept_with_patience_or_on_request():
    assert not TrainingConfig().keeps_best
    assert TrainingConfig(patience=3).keeps_best
    assert TrainingConfig(select="best").keeps_best
    assert not TrainingConfig(patience=3, select="last").keeps_best


def test_differing_keys_name_path_and_both_values():
    saved = Run(width=5).model_dump(mode="json")
    new = Run(training=TrainingConfig(steps=9, num_workers=3, devices=2, checkpoint_every=1))
    assert differing_keys(saved, new) == ["training.steps: 1000 -> 9", "width: 5 -> 4"]


def test_a_field_that_the_saved_run_did_not_know_counts_as_its_default():
    saved = Run().model_dump(mode="json")
    del saved["training"]["val_batch_size"]
    assert differing_keys(saved, Run()) == []
    assert differing_keys(saved, Run(training=TrainingConfig(val_batch_size=2))) == ["training.val_batch_size: 1 -> 2"]


def test_a_saved_run_with_a_field_that_no_longer_exists_differs():
    saved = Run().model_dump(mode="json") | {"depth": 3}
    assert differing_keys(saved, Run()) == ["depth: 3 -> (absent)"]


def test_reading_a_configuration_does_not_load_torch():
    code = "import sys, mri_io.training as t; t.TrainingConfig();assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
