"""Errors: their builtin bases, exit codes and message form."""

import pytest

from mri_io import errors
from mri_io.errors import MriError, expected_got


@pytest.mark.parametrize(
    ("name", "builtin", "exit_code"),
    [
        ("ConfigError", ValueError, 2),
        ("ShapeError", ValueError, 1),
        ("FormatError", ValueError, 1),
        ("NonFiniteError", ValueError, 1),
        ("MissingPackageError", ImportError, 3),
        ("StoreError", OSError, 1),
        ("SchemaError", ValueError, 1),
        ("VersionError", OSError, 1),
        ("ElementExistsError", FileExistsError, 1),
        ("ElementNotFoundError", KeyError, 1),
        ("CorruptElementError", OSError, 1),
    ],
)
def test_each_error_is_also_the_closest_builtin(name: str, builtin: type, exit_code: int):
    error = getattr(errors, name)("sub-01: what happened.")
    assert isinstance(error, MriError)
    assert isinstance(error, builtin)
    assert error.exit_code == exit_code
    assert str(error) == "sub-01: what happened."  # KeyError alone would quote it


def test_an_error_without_message_gives_its_name():
    assert str(errors.StoreError()) == "StoreError"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"expected": (8, 160), "got": (8, 128), "where": "a.h5"},
            "a.h5: shape: expected (8, 160), got (8, 128).",
        ),
        (
            {"expected": ["recon/a", "recon/b"], "got": "recon/c", "fix": "Run it."},
            "shape: expected recon/a, recon/b, got recon/c. Run it.",
        ),
        ({"expected": [], "got": None}, "shape: expected (), got None."),
    ],
)
def test_expected_got(options: dict, message: str):
    assert expected_got("shape", **options) == message
