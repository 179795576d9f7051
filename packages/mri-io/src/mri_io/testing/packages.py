"""Small third-party packages, built and installed without a network, for tests of plug-ins."""

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["install_package", "install_source"]


def install_package(
    target: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]]
) -> Path:
    """Install a package of pure Python into a folder that is to be put on the PYTHONPATH, by pip.

    Parameters
    ----------
    target
        The folder.
    name
        Of the distribution, ``mri-x``.
    modules
        Source text by file name, ``mri_x/__init__.py``.
    entry_points
        By group and name, ``{"mri_io.steps": {"blur": "mri_x:blur"}}``.
    """
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    groups = [
        "\n".join([f"[{group}]", *(f"{key} = {place}" for key, place in points.items())])
        for group, points in entry_points.items()
    ]
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n\n".join(groups) + "\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    target.mkdir(parents=True, exist_ok=True)
    wheel = target / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    _pip_install(wheel, target)
    wheel.unlink()
    return target


def install_source(target: Path, source: Path) -> Path:
    """Build the package of a folder with a ``pyproject.toml``, and install it into a folder for the PYTHONPATH."""
    _pip_install(source, target, "--no-build-isolation")
    return target


def _pip_install(what: Path, target: Path, *options: str) -> None:
    """Install without a network."""
    plain = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *plain, *options, str(what)], check=True)
