"""Errors of all packages: each says what was expected, what was found, where, and what to do.

Every class also derives from the closest builtin, so that callers may catch either. ``exit_code`` is the exit status
with which the command line ends.
"""

from collections.abc import Sequence

__all__ = [
    "ConfigError",
    "CorruptElementError",
    "ElementExistsError",
    "ElementNotFoundError",
    "FormatError",
    "MissingPackageError",
    "MriError",
    "NonFiniteError",
    "SchemaError",
    "ShapeError",
    "StoreError",
    "VersionError",
    "expected_got",
]


class MriError(Exception):
    """Base of every error that the packages raise on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message as written (KeyError would quote it)."""
        return str(self.args[0]) if self.args else type(self).__name__


class ConfigError(MriError, ValueError):
    """A configuration, option or override is unknown or out of range."""

    exit_code = 2


class ShapeError(MriError, ValueError):
    """An array has the wrong dimensions for what it is used for."""


class FormatError(MriError, ValueError):
    """An input file is truncated, mislabelled or not what it should be."""


class NonFiniteError(FormatError):
    """Raw data hold NaN or infinity."""


class MissingPackageError(MriError, ImportError):
    """An optional package is needed; the message says which to install."""

    exit_code = 3


class StoreError(MriError, OSError):
    """The store could not be read or written."""


class SchemaError(StoreError, ValueError):
    """An element or attribute does not follow the specification of the store."""


class VersionError(StoreError):
    """The store was written by a newer major version of the specification."""


class ElementExistsError(StoreError, FileExistsError):
    """The element or volume is committed already, and committed data are immutable."""


class ElementNotFoundError(StoreError, KeyError):
    """There is no such committed element or volume."""


class CorruptElementError(StoreError):
    """Stored bytes do not match their checksum or their metadata."""


def expected_got(what: str, *, expected: object, got: object, where: object = None, fix: str = "") -> str:
    """Format the house's error message.

    Parameters
    ----------
    what
        The quantity that is wrong, e.g. ``"mask length"``.
    expected, got
        What it should be and what it is; sequences of names are joined by commas.
    where
        The file or element at fault.
    fix
        What the user can do, as a sentence.

    Returns
    -------
    str
        ``"<where>: <what>: expected <expected>, got <got>. <fix>"``

    Examples
    --------
    >>> expected_got("mask length", expected=160, got=128, where="a.h5")
    'a.h5: mask length: expected 160, got 128.'
    """

    def text(value: object) -> str:
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            if value and all(isinstance(item, str) for item in value):
                return ", ".join(str(item) for item in value)
            return str(tuple(value))
        return str(value)

    start = f"{where}: " if where is not None else ""
    end = f" {fix}" if fix else ""
    return f"{start}{what}: expected {text(expected)}, got {text(got)}.{end}"
