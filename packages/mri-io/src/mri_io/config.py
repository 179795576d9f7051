"""One configuration system for every package: frozen pydantic models, one YAML per run, ``--set a.b=value``."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mri_io.errors import ConfigError

__all__ = ["Config", "config_hash", "dump_config", "load_config", "validate_config"]


class Config(BaseModel):
    """Base of all configurations: immutable, unknown keys refused, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


C = TypeVar("C", bound=Config)


def load_config(
    cls: type[C],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> C:
    """Build a configuration from defaults, a YAML file and overrides, in this order of precedence.

    Parameters
    ----------
    cls
        The configuration model.
    path
        A YAML file, or None.
    overrides
        Strings ``"a.b=value"``; the value is read as YAML, so ``1e-3``, ``true``, ``[1, 2]`` and ``null`` work.
    base
        Values below the file in precedence, e.g. those of a checkpoint.

    Returns
    -------
    Config
        An instance of `cls`.

    Raises
    ------
    ConfigError
        Listing every unknown key and every value out of range at once.
    """
    values = _deep_copy(base or {})
    where = "configuration"
    if path is not None:
        where = str(path)
        _merge(values, _read_yaml(Path(path)))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override!r}: expected the form a.b=value.")
        _set(values, key.strip().split("."), _scalar(text), override)
    return validate_config(cls, _with_defaults(cls, values), where=where)


def validate_config(cls: type[C], values: Mapping[str, Any], *, where: str = "configuration") -> C:
    """Validate a nested mapping against `cls`; raise ConfigError with all problems in one message."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]) or "(top level)"
            if item["type"] == "extra_forbidden":
                *section, wrong = item["loc"]
                known = _known_keys(cls, section)
                close = get_close_matches(str(wrong), known, 1)
                meant = f"; did you mean {close[0]}?" if close else "."
                problems.append(f"{key}: unknown key{meant}" + (f" Known here: {', '.join(known)}" if known else ""))
            elif item["type"] == "value_error":  # of a validator of ours, which may name key and value itself
                text = str(item["ctx"]["error"])
                text = text if text.startswith(f"{key}: ") else f"{key}: {text}"
                problems.append(text if ", got " in text else f"{text} (got {item['input']!r})")
            else:
                problems.append(f"{key}: {item['msg']} (got {item['input']!r})")
        raise ConfigError(f"{where}:\n  " + "\n  ".join(problems)) from None


def _known_keys(cls: type[BaseModel], section: Sequence[int | str]) -> list[str]:
    """Return the keys of the section of a configuration that the location of an error names."""
    kinds = [cls]
    for part in section:
        fields = [kind.model_fields[str(part)].annotation for kind in kinds if str(part) in kind.model_fields]
        if fields:  # else the tag of a member of a union, which stands in the location too
            kinds = [kind for field in fields for kind in _models_in(field)]
        else:
            kinds = [k for k in kinds if any(f.default == part for f in k.model_fields.values())] or kinds
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def dump_config(config: Config) -> str:
    """Return the complete configuration as YAML; `load_config` reads it back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_hash(config: Config | Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of a configuration, as 64 hexadecimal digits."""
    values = config.model_dump(mode="json") if isinstance(config, Config) else config
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML reads ``1e-3`` as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _scalar(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set value {text!r} is not valid YAML: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file.") from None
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable YAML file: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, got {type(values).__name__}.")
    return values


def _with_defaults(cls: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Put the values that a default instance sets under those given, section by section.

    Without it ``training: TrainingConfig = TrainingConfig(batch_size=6)`` would lose its 6 as soon as any other key
    of ``training`` is given. A section that names another member of a union (by ``name``) starts from that member's
    own defaults.
    """
    filled = dict(values)
    for key, field in cls.model_fields.items():
        default, given = field.default, values.get(key)
        if not isinstance(default, Config) or not isinstance(given, Mapping):
            continue
        tag = _union_tag(default)
        if given.get("name", tag.get("name")) == tag.get("name", given.get("name")):
            section = {**tag, **default.model_dump(exclude_unset=True)}
            _merge(section, given)
            filled[key] = _with_defaults(type(default), section)
    return filled


def _union_tag(config: Config) -> dict[str, Any]:
    """Return ``{"name": ...}`` if `config` is a member of a union that is told apart by a literal name."""
    field = type(config).model_fields.get("name")
    literal = field is not None and get_origin(field.annotation) is Literal
    return {"name": config.model_dump()["name"]} if literal else {}


def _deep_copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _deep_copy(v) if isinstance(v, Mapping) else v for k, v in values.items()}


def _merge(values: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        child = values.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {key!r} holds a single value, not a group of keys.")
        values = child
    values[keys[-1]] = value
