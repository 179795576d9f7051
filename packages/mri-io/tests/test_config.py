"""Configuration: precedence, refusal of mistakes, round trip, hash."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from mri_io.config import Config, config_hash, dump_config, load_config, validate_config
from mri_io.errors import ConfigError


class Model(Config):
    cascades: int = Field(8, gt=0)
    widths: tuple[int, ...] = (16, 32)


class Run(Config):
    model: Model = Model()
    rate: float = 1e-3
    name: str | None = None


def test_precedence_is_base_then_file_then_overrides(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("model:\n  cascades: 4\nrate: 0.5\n")
    config = load_config(Run, path, ["rate=2e-4"], base={"model": {"cascades": 2, "widths": [1]}, "name": "base"})
    assert config == Run(model=Model(cascades=4, widths=(1,)), rate=2e-4, name="base")


def test_base_is_left_as_it_is():
    base = {"model": {"cascades": 2}}
    load_config(Run, None, ["model.cascades=3"], base=base)
    assert base == {"model": {"cascades": 2}}


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("-1E4", -1e4), ("0.5", 0.5), ("+2.e-1", 0.2), ("3", 3.0)])
def test_numbers_are_read_as_yaml_1_2(text: str, value: float):
    assert load_config(Run, None, [f"rate={text}"]).rate == value


def test_lists_null_and_text_in_overrides():
    config = load_config(Run, None, ["model.widths=[1, 2, 3]", "name=null"], base={"name": "x"})
    assert config.model.widths == (1, 2, 3)
    assert config.name is None


def test_every_mistake_is_reported_at_once(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {cascades: 0, depth: 3}\nrte: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path)
    message = str(caught.value)
    assert str(path) in message
    assert "model.depth: unknown key. Known here: " in message
    assert "rte: unknown key; did you mean rate? Known here: model, rate, name" in message
    assert "model.cascades: Input should be greater than 0 (got 0)" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rate", "expected the form a.b=value"),
        ("=1", "expected the form a.b=value"),
        ("rate.x=1", "rate.x: unknown key|rate: "),
        ("rate=[1", "not valid YAML"),
    ],
)
def test_bad_overrides(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(Run, None, [override])


def test_override_into_a_single_value_of_the_file(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("rate: 1\n")
    with pytest.raises(ConfigError, match="holds a single value"):
        load_config(Run, path, ["rate.x=1"])


@pytest.mark.parametrize("content", [b"a: [", b"- 1\n- 2\n", b"\xff\xfe\x00a", b"just text"])
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        load_config(Run, path)


def test_missing_file_and_empty_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(Run, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="expected a readable YAML file"):
        load_config(Run, tmp_path)
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    assert load_config(Run, empty) == Run()


@given(
    st.integers(1, 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
def test_dumped_yaml_reads_back_to_an_equal_object(tmp_path_factory, cascades: int, rate: float, name: str | None):
    config = Run(model=Model(cascades=cascades), rate=rate, name=name)
    path = tmp_path_factory.mktemp("dump") / "run.yaml"
    path.write_bytes(dump_config(config).encode())
    assert load_config(Run, path) == config


def test_hash_is_the_sha256_of_canonical_json():
    text = '{"model":{"cascades":8,"widths":[16,32]},"name":null,"rate":0.001}'
    assert config_hash(Run()) == hashlib.sha256(text.encode()).hexdigest()
    assert config_hash({"b": 1, "a": 2}) == config_hash({"a": 2, "b": 1}) != config_hash({"a": 2, "b": 2})


def test_configurations_are_frozen_and_validated():
    with pytest.raises(ValueError, match="frozen"):
        Run().rate = 2.0  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"here:\n  rate"):
        validate_config(Run, {"rate": "fast"}, where="here")


class A(Config):
    name: Literal["a"] = "a"
    width: int = 1
    depth: int = 1


class B(Config):
    name: Literal["b"] = "b"
    width: int = 2


class Inner(Config):
    net: Annotated[A | B, Field(discriminator="name")] = A(width=7)
    rate: float = 1.0


class Outer(Config):
    inner: Inner = Inner(rate=5.0)
    other: Inner | None = None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"rate": 5.0, "net": {"name": "a", "width": 7, "depth": 1}}),
        (["inner.net.depth=3"], {"rate": 5.0, "net": {"name": "a", "width": 7, "depth": 3}}),
        (["inner.net.name=a"], {"rate": 5.0, "net": {"name": "a", "width": 7, "depth": 1}}),
        (["inner.net.name=b"], {"rate": 5.0, "net": {"name": "b", "width": 2}}),
        (["inner.rate=2"], {"rate": 2.0, "net": {"name": "a", "width": 7, "depth": 1}}),
    ],
)
def test_a_key_of_a_section_leaves_the_other_defaults_of_that_section(overrides: list[str], expected: dict):
    assert load_config(Outer, None, overrides).model_dump()["inner"] == expected
