"""What other packages register through entry points: formats, element types, preparation steps, exporters."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from mri_io.errors import ConfigError, expected_got

__all__ = ["load_plugin", "plugin_instance", "plugin_names"]

_T = TypeVar("_T")


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
        raise _broken(group, name, "cannot be loaded", error) from error


@cache
def plugin_instance(group: str, name: str, kind: type[_T]) -> _T:
    """Return the object of a class that a package registers under a name, as it is or as a function that returns it.

    Raises
    ------
    KeyError
        When nothing is registered.
    ConfigError
        When it cannot be imported or made, or is no `kind` of that name.
    """
    found = load_plugin(group, name)
    if callable(found) and not isinstance(found, kind):
        try:
            found = found()
        except Exception as error:  # whatever a foreign package raises
            raise _broken(group, name, "fails", error) from error
    if not isinstance(found, kind) or getattr(found, "name", None) != name:
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        expected = f"{article} {kind.__name__} named {name!r}"
        raise ConfigError(expected_got(f"{group} {name!r}", expected=expected, got=repr(found)))
    return found


def _broken(group: str, name: str, how: str, error: Exception) -> ConfigError:
    point = _found(group)[name]
    return ConfigError(
        f"{_package(point)}: {group} {name!r}: {point.value} {how}: {type(error).__name__}: {error}. "
        "Mend or uninstall that package."
    )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
