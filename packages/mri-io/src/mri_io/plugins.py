"""What other packages register through entry points: formats, element types, preparation steps, exporters."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mri_io.errors import ConfigError

__all__ = ["load_plugin", "plugin_names"]


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise ConfigError(
                f"{group}: {_package(other)} and {_package(point)} both register {point.name!r}. Uninstall one of them."
            )
    return found


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names that installed packages register in an entry-point group, sorted; nothing is imported."""
    return tuple(sorted(_found(group)))


@cache
def load_plugin(group: str, name: str) -> Any:
    """Import what a package registers under a name.

    Raises
    ------
    KeyError
        When nothing is registered.
    ConfigError
        When it cannot be imported; the message names the package.
    """
    point = _found(group)[name]
    try:
        return point.load()
    except Exception as error:  # whatever a foreign package raises at import
        raise ConfigError(
            f"{_package(point)}: {group} {name!r}: {point.value} cannot be loaded: {type(error).__name__}: {error}. "
            "Mend or uninstall that package."
        ) from error


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
