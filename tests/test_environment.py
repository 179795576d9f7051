"""The environment itself: what must stay out, and what the pins promise."""

import re
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "module",
    ["torchvision", "timm", "segmentation_models_pytorch", "segment_anything", "sam2", "deepinv", "nnunetv2"],
)
def test_packages_that_break_torch_are_absent(module: str) -> None:
    assert find_spec(module) is None, f"{module} is installed; remove it: it pulls another torch or breaks this one"


def test_installed_versions_are_the_pinned_ones() -> None:
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.M))
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    wrong = []
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        if name in names and distribution.version.partition("+")[0] != names[name]:
            wrong.append(f"{name}: installed {distribution.version}, pinned {names[name]}")
    assert not wrong
    assert names["torch"] == "2.13.0"


def test_every_package_has_its_papers() -> None:
    for package in ("mri-io", "mri-recon", "mri-seg", "mri-joint", "mri-cli"):
        folder = ROOT / "packages" / package
        for name in ("README.md", "CHANGELOG.md", f"src/{package.replace('-', '_')}/py.typed"):
            assert (folder / name).is_file(), f"{package}: {name} is missing"
        assert len((folder / "README.md").read_text().splitlines()) > 10


def test_source_files_stay_short() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.glob("packages/*/src/**/*.py")
        if (lines := len(path.read_text().splitlines())) > 500
    }
    assert not long
