"""Validate attributes against the JSON Schemas that are part of the package."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from mri_io.errors import SchemaError

__all__ = ["SCHEMAS", "load_schema", "validate"]

SCHEMAS = ("cohort", "element", "evaluation", "index-row", "split", "statistics", "volume")


@cache
def load_schema(name: str) -> dict[str, Any]:
    """Return one of `SCHEMAS`, JSON Schema draft 2020-12."""
    text = files("mri_io.schema").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load_schema(name))


def validate(name: str, content: Any, where: object) -> None:
    """Raise SchemaError naming every violation when `content` does not follow the schema `name`, or is no JSON."""
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{where}: the {name} attributes are not JSON values: {error}.") from None
    problems = sorted(_validator(name).iter_errors(content), key=lambda error: list(map(str, error.path)))
    if problems:
        lines = [f"{'.'.join(map(str, problem.path)) or '(top level)'}: {problem.message}" for problem in problems[:10]]
        raise SchemaError(f"{where}: the {name} attributes do not follow the schema:\n  " + "\n  ".join(lines))
