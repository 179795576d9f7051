"""The command host: quick, lazy, open to other packages, and clear about what is missing."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path

import pytest

from mri_io import options

HEAVY = (
    "torch",
    "zarr",
    "dask",
    "xarray",
    "numpy",
    "lightning",
    "pydantic",
    "h5py",
    "nibabel",
    "monai",
    "rich",
)

PROBE = """
import json, runpy, sys
sys.argv = ["mri-cli", *json.loads(sys.argv[1])]
try:
    runpy.run_module("mri_cli", run_name="__main__")
except SystemExit as stop:
    status = stop.code
print("PROBE" + json.dumps({"status": status, "modules": [m for m in %r if m in sys.modules]}))
"""


def run(*args: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = dict(os.environ, PYTHONPATH=str(path) if path else "", COLUMNS="120")
    return subprocess.run(
        [sys.executable, "-m", "mri_cli", *args],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def modules_after(*args: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE % (HEAVY,), json.dumps(args)], capture_output=True, text=True, check=True
    )
    probe = json.loads(done.stdout.rpartition("PROBE")[2])
    assert probe["status"] in (0, None), done.stdout + done.stderr
    return probe["modules"]


def plugin(folder: Path, name: str, source: str, *commands: str) -> Path:
    """Lay out a distribution as an installer would: a module and its metadata."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Summary of {name}\n")
    lines = "".join(f"{command} = {name}:{command}\n" for command in commands)
    (info / "entry_points.txt").write_text(f"[mri_cli.commands]\n{lines}")
    return folder


def test_root_help_imports_nothing_heavy() -> None:
    assert modules_after("--help") == []


@pytest.mark.parametrize("command", ["convert", "ls", "verify", "simulate", "report", "recon", "seg", "joint", "demo"])
def test_help_of_a_command_imports_neither_torch_nor_the_store(command: str) -> None:
    loaded = modules_after(command, "--help")
    assert set(loaded) <= {"rich"}, f"`mri-cli {command} --help` imported {loaded}"


def test_root_help_names_every_command_with_its_own_line() -> None:
    text = run("--help").stdout
    for command in ("convert", "recon", "seg", "joint", "demo", "report"):
        assert any(line.strip().startswith(command + " ") for line in text.splitlines()), text
    assert "unavailable" not in text


def test_help_shows_what_stands_in_brackets() -> None:
    text = " ".join(run("export", "--help").stdout.replace("│", " ").split())
    assert "Volume id; repeat for several [all]." in text
    assert "imag or complex [magnitude; for bart complex]." in text
    assert "sync, local[:N], slurm[:N] or tcp://host:port." in text
    assert "Part of the split [all volumes]." in " ".join(run("recon", "calibrate", "--help").stdout.split())


def test_another_package_adds_a_command_that_is_imported_only_when_used(tmp_path: Path) -> None:
    source = "import pathlib\npathlib.Path(__file__ + '.used').touch()\ndef greet(name: str):\n    print(name)\n"
    folder = plugin(tmp_path / "site", "greeter", source, "greet")
    text = run("--help", path=folder).stdout
    assert "Summary of greeter" in text
    assert not (folder / "greeter.py.used").exists()
    assert run("greet", "world", path=folder).stdout == "world\n"
    assert (folder / "greeter.py.used").exists()


def test_a_broken_package_leaves_the_others_working(tmp_path: Path) -> None:
    folder = plugin(tmp_path / "site", "broken", "import no_such_module\n", "explode", "implode")
    assert "unavailable" in run("--help", path=folder).stdout
    done = run("explode", path=folder)
    assert done.returncode == 3
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("demo", "--help", path=folder).returncode == 0


SOURCE_OF_ERRORS = """
class Planned(Exception):
    exit_code = 7
def planned():
    raise Planned("a.h5: mask length: expected 160, got 128.")
def missing():
    import no_such_module
def bug():
    raise ZeroDivisionError("a bug")
"""


def test_errors_become_one_line_and_an_exit_status(tmp_path: Path) -> None:
    folder = plugin(tmp_path / "site", "failing", SOURCE_OF_ERRORS, "planned", "missing", "bug")
    done = run("planned", path=folder)
    assert (done.returncode, done.stderr) == (7, "error: a.h5: mask length: expected 160, got 128.\n")
    done = run("missing", path=folder)
    assert done.returncode == 3
    assert "pip install no_such_module" in done.stderr
    assert "Traceback" in run("bug", path=folder).stderr  # a defect must not hide
    assert "Traceback" in run("--debug", "planned", path=folder).stderr


def test_unknown_commands_and_options_exit_with_2() -> None:
    assert run("no-such-command").returncode == 2
    assert run("demo", "--no-such-option").returncode == 2


def test_versions() -> None:
    lines = run("--version").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["mri-cli", "mri-io", "mri-recon", "mri-seg", "mri-joint"]


@pytest.mark.parametrize(
    "command",
    [
        *("prep", "resample", "stats", "export", "report"),
        *("recon calibrate", "recon run", "recon train", "recon evaluate"),
        *(f"{package} {command}" for package in ("seg", "joint") for command in ("run", "train", "evaluate")),
    ],
)
def test_commands_that_read_much_take_a_cache(command: str) -> None:
    first, *rest = command.split()
    (entry,) = entry_points(group="mri_cli.commands", name=first)
    found = entry.load()
    callbacks = {info.callback.__name__: info.callback for info in found.registered_commands} if rest else {"": found}
    parameter = signature(callbacks[rest[0] if rest else ""]).parameters["cache"]
    assert parameter.annotation is options.Cache or parameter.annotation == "options.Cache"
