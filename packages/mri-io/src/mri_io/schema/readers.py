"""Reading older layouts: one pure step per element type and version brings attributes to the version after it.

Rule R3 of the specification: readers ignore what they do not know, refuse what is newer than they are, and accept
anything older through this table. Writers emit the current version only.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from mri_io.errors import CorruptElementError, VersionError, expected_got
from mri_io.schema.elements import SCHEMA_VERSION, known_type

__all__ = [
    "COHORT_STEPS",
    "STEPS",
    "VOLUME_STEPS",
    "AttributeReader",
    "check_version",
    "is_known",
    "read_current",
    "read_current_root",
    "version_number",
]

AttributeReader = Callable[[Mapping[str, Any]], dict[str, Any]]

STEPS: dict[tuple[str, int], AttributeReader] = {
    # Version 2 admits int8 with scales beside the float16 of version 1.
    ("emb", 1): dict,
}
"""``(type, version)`` to a pure function from the stored attributes to those of the next version."""

VOLUME_STEPS: dict[str, tuple[str, AttributeReader]] = {"1.0": ("1.1", dict)}
"""Version of a volume to the next version, and a pure function from its attributes to those of that version."""
COHORT_STEPS: dict[str, tuple[str, AttributeReader]] = {"1.0": ("1.1", dict)}
"""The same for ``cohort.json``."""


def version_number(version: str) -> tuple[int, ...]:
    """Return a version as numbers, which can be compared."""
    return tuple(int(part) for part in version.split("."))


def check_version(found: object, where: object) -> None:
    """Raise VersionError when a store's version is newer in its major number, or no version at all."""
    text = found if isinstance(found, str) else ""
    if not re.fullmatch(r"\d+\.\d+", text):
        raise CorruptElementError(expected_got("schema_version", expected="major.minor", got=repr(found), where=where))
    if int(text.split(".")[0]) > int(SCHEMA_VERSION.split(".")[0]):
        raise VersionError(
            f"{where}: written with store version {text}, this release of mri-io reads up to "
            f"{SCHEMA_VERSION.split('.')[0]}.x. Upgrade it: pip install --upgrade mri-io"
        )


def is_known(attributes: Mapping[str, Any]) -> bool:
    """Whether this release has heard of the element's type, in any version."""
    return known_type(attributes.get("type")) is not None


def read_current(attributes: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Return the attributes of an element as the current version of its type has them.

    Raises
    ------
    VersionError
        When the element is of a newer version than this release knows.
    CorruptElementError
        When type or version are unreadable.
    """
    name, version = attributes.get("type"), attributes.get("type_version")
    if not isinstance(name, str) or type(version) is not int or version < 1:
        raise CorruptElementError(
            f"{where}: type and type_version: expected a name and a positive integer, got {name!r} and {version!r}."
        )
    kind = known_type(name)
    if kind is None or version > kind.version:
        reads = "does not know this type" if kind is None else f"reads up to version {kind.version}"
        raise VersionError(
            f"{where}: element type {name!r} version {version}; this release of mri-io {reads}. "
            "Upgrade it: pip install --upgrade mri-io"
        )
    found = dict(attributes)
    for older in range(version, kind.version):
        step = STEPS.get((name, older)) or kind.steps.get(older)
        if step is None:
            raise VersionError(f"{where}: element type {name!r} version {older} can no longer be read.")
        found = {**step(found), "type_version": older + 1}
    return found


def read_current_root(
    attributes: Mapping[str, Any], steps: Mapping[str, tuple[str, AttributeReader]], where: object
) -> dict[str, Any]:
    """Return the attributes of a volume or cohort as the current version of the store has them.

    The hash by which a conversion knows its volume again covers the version of the store: `converter` keeps the one
    that it was made with.

    Raises
    ------
    VersionError
        When no step leads from the version to the current one.
    """
    found = dict(attributes)
    if found["schema_version"] != SCHEMA_VERSION and isinstance(found.get("converter"), Mapping):
        found["converter"] = {"schema_version": found["schema_version"], **found["converter"]}
    while (version := found["schema_version"]) != SCHEMA_VERSION:
        if version not in steps:
            raise VersionError(f"{where}: store version {version} can no longer be brought to {SCHEMA_VERSION}.")
        after, step = steps[version]
        found = {**step(found), "schema_version": after}
    return found
