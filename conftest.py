"""Settings of all tests: shapes and types in signatures are checked at run time."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

import mri_io.testing.runtime_types  # noqa: F401  (the hook looks it up by name)

# Must come before the packages are imported. mri_io's arrays are checked by the store itself.
install_import_hook(["mri_recon", "mri_seg", "mri_joint"], "mri_io.testing.runtime_types.checked")

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell that starts the tests in the background has them ignore interrupts, and all that they start do the same.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data, or skip the test.

    It is the folder that the environment variable MRI_TEST_DATA names, or ``shared/data`` beside the checkout.
    """
    default = Path(__file__).resolve().parents[1] / "shared" / "data"
    folder = Path(os.environ.get("MRI_TEST_DATA", default))
    if not (folder / "kspace_brain8ch").is_dir():
        pytest.skip(f"no real data at {folder}; set MRI_TEST_DATA to their folder")
    return folder


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs ``mri-cli`` with the given arguments in this process, as its entry point does."""
    host = pytest.importorskip("mri_cli.__main__")

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["mri-cli", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            host.main()
        printed = capsys.readouterr()
        return Done(int(stop.value.code or 0), printed.out, printed.err)

    return run
