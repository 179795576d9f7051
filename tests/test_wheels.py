"""Each package installs alone: wheels built here, installed into clean virtual environments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mri-io", "mri-recon", "mri-seg", "mri-joint", "mri-cli")


def call(*command: str | Path, **env: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for package in PACKAGES:
        call(
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            folder,
            ROOT / "packages" / package,
        )
    assert len(list(folder.glob("*.whl"))) == len(PACKAGES)
    return folder


def environment(folder: Path, wheels: Path, *packages: str) -> Path:
    """Make a clean virtual environment with the given packages from their wheels; return its bin folder."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    files = [next(wheels.glob(f"{package.replace('-', '_')}-*.whl")) for package in packages]
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", binaries / "python"]
    call(*uv, "-c", ROOT / "constraints.txt", *files)
    return binaries


def installed(binaries: Path) -> set[str]:
    code = "from importlib.metadata import distributions as d; print(*{x.metadata['Name'].lower() for x in d()})"
    return set(call(binaries / "python", "-c", code).split())


@pytest.mark.slow
def test_mri_io_alone_brings_no_torch_and_works(tmp_path: Path, wheels: Path) -> None:
    binaries = environment(tmp_path / "env", wheels, "mri-io")
    names = installed(binaries)
    assert "mri-io" in names
    assert not names & {
        "torch",
        "lightning",
        "pytorch-lightning",
        "monai",
        "mri-cli",
        "matplotlib",
        "nilearn",
    }
    code = (
        "import mri_io, sys; mri_io.create_cohort(sys.argv[1]); "
        "assert len(mri_io.open_cohort(sys.argv[1])) == 0; assert 'torch' not in sys.modules"
    )
    call(binaries / "python", "-W", "error", "-c", code, tmp_path / "cohort")


@pytest.mark.slow
def test_the_host_with_mri_io_lists_its_commands_and_names_the_rest(tmp_path: Path, wheels: Path) -> None:
    binaries = environment(tmp_path / "env", wheels, "mri-io", "mri-cli")
    assert "torch" not in installed(binaries)
    text = call(binaries / "mri-cli", "--help", COLUMNS="120")
    commands, _, absent = text.partition("Not installed:")
    names = {"convert", "export", "gc", "index", "info", "ls", "migrate", "prep", "resample", "simulate", "verify"}
    for command in names:
        assert f"\n  {command} " in commands
    for package in ("mri-recon", "mri-seg", "mri-joint"):
        assert f"pip install {package}" in absent
    done = subprocess.run([binaries / "mri-cli", "recon", "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install mri-recon" in done.stderr


def test_wheels_hold_types_and_schemas_and_depend_by_range(wheels: Path) -> None:
    from zipfile import ZipFile

    for package in PACKAGES:
        with ZipFile(next(wheels.glob(f"{package.replace('-', '_')}-*.whl"))) as wheel:
            names = wheel.namelist()
            assert any(name.endswith("/py.typed") for name in names)
            metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
            ours = tuple(f"Requires-Dist: {name}" for name in PACKAGES)
            requires = [line for line in metadata.splitlines() if line.startswith(ours)]
            assert all(">=0.1" in line and "<0.2" in line for line in requires), requires
            if package == "mri-io":
                assert any(name.endswith(".json") and "/schemas/" in name for name in names)
            if package == "mri-joint":
                assert {line.split()[1].split("[")[0].split("<")[0] for line in requires} == {
                    "mri-io",
                    "mri-recon",
                    "mri-seg",
                }
