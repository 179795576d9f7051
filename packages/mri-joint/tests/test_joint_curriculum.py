"""The curriculum: the published formula, its end in the target mask, and its place in steps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_io.errors import ConfigError
from mri_joint.config import CurriculumConfig
from mri_joint.curriculum import epoch_of, mask_at_rate, sampled_fraction


def test_rates_are_those_of_the_formula_worked_out_by_hand():
    """r = 1/4, eps = 0, P = 2: 1, then 1 * (1/4)^(1/2) = 1/2, then 1/4."""
    config = CurriculumConfig(epochs=2, epsilon=0.0)
    assert [sampled_fraction(i, 0.25, config) for i in (1, 2, 3, 4)] == pytest.approx([1, 0.5, 0.25, 0.25])


@given(st.floats(0.05, 0.6), st.floats(0, 0.3), st.integers(1, 40), st.integers(1, 60))
def test_logarithm_of_the_rate_falls_on_a_straight_line(target: float, epsilon: float, epochs: int, epoch: int):
    """An independent form: log r_i interpolates between log(1 - eps) at epoch 1 and log r at epoch P + 1."""
    config = CurriculumConfig(epochs=epochs, epsilon=epsilon)
    line = np.interp(epoch, [1, epochs + 1], [math.log(1 - epsilon), math.log(target)])
    assert math.log(sampled_fraction(epoch, target, config)) == pytest.approx(line, abs=1e-9)


def test_a_target_with_nearly_everything_sampled_has_no_curriculum():
    assert sampled_fraction(1, 0.99, CurriculumConfig(epsilon=0.05)) == 0.99


@pytest.mark.parametrize(("epoch", "target"), [(0, 0.25), (1, 0.0), (1, 1.1)])
def test_values_without_meaning_are_refused(epoch: int, target: float):
    with pytest.raises(ConfigError, match="curriculum: expected"):
        sampled_fraction(epoch, target, CurriculumConfig())


def test_epochs_in_steps():
    given_length = CurriculumConfig(epochs=3, steps_per_epoch=5)
    assert [epoch_of(step, given_length, 100) for step in (0, 4, 5, 14, 15)] == [1, 1, 2, 3, 4]
    half = CurriculumConfig(epochs=10)
    epochs = [epoch_of(step, half, 200) for step in range(200)]
    assert epochs[:100] == [1 + step // 10 for step in range(100)]
    assert min(epochs[100:]) == 11
    assert [epoch_of(step, half, 4) for step in range(4)] == [1, 6, 11, 16]


@given(st.lists(st.booleans(), min_size=4, max_size=64), st.floats(0, 1), st.integers(0, 2**31))
def test_lines_are_added_to_the_target_up_to_the_rate(lines: list[bool], rate: float, seed: int):
    target = np.array(lines, np.uint8)[None, None]
    mask = mask_at_rate(target, rate, np.random.default_rng(seed))
    assert mask.shape == target.shape
    assert mask.dtype == np.uint8
    assert (mask >= target).all()
    assert mask.sum() == max(round(rate * len(lines)), sum(lines))


def test_only_lines_that_were_measured_are_added():
    target, measured = np.zeros((1, 1, 64), np.float32), np.zeros((1, 1, 64), np.float32)
    target[..., 30:34] = measured[..., 20:44] = 1
    half = mask_at_rate(target, 0.25, np.random.default_rng(0), measured)
    assert half.sum() == 16
    assert (half <= measured).all()
    np.testing.assert_array_equal(mask_at_rate(target, 1.0, np.random.default_rng(0), measured), measured)


def test_added_lines_differ_between_draws_and_repeat_with_the_seed():
    target = np.zeros((1, 1, 64), np.float32)
    draws = [mask_at_rate(target, 0.5, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()
