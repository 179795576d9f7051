"""The main job end to end, on next to nothing: every public command, from raw files to the report."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import mri_io


def cli(*arguments: str, status: int = 0) -> str:
    env = dict(os.environ, OMP_NUM_THREADS="2", COLUMNS="160")
    done = subprocess.run(
        [sys.executable, "-m", "mri_cli", *arguments], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Resources(HTMLParser):
    """Collect what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "with a space"
    return out, cli("demo", "--size", "tiny", "--out", str(out))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_prints_its_command_and_leaves_its_elements(demo: tuple[Path, str]) -> None:
    out, text = demo
    printed = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ mri-cli ")]
    planned = cli("demo", "--size", "tiny", "--out", str(out), "--dry-run").splitlines()
    assert printed == planned
    cohort = mri_io.open_cohort(out / "cohort")
    assert len(cohort) == 4
    assert not cohort.failures()
    volume = cohort.volumes("default", "test")[0]
    elements = set(volume.elements())
    images = {"reference", "zero-filled-r4", "cg-sense-r4", "varnet-r4", "joint-r4", "segmenter-only-r4"}
    assert {f"recon/{name}" for name in (*images, "reconstruction-only-r4")} <= elements
    assert {"kspace", "mask/equispaced-r4", "sens/espirit", "sens/espirit-full", "seg/tissue"} <= elements
    assert {"seg/joint-r4", "seg/unet-reference", "seg/unet-varnet-r4"} <= elements
    assert mri_io.verify(cohort).ok
    joint = volume["recon/joint-r4"]
    assert {item["path"] for item in joint.provenance["inputs"]} >= {"kspace", "mask/equispaced-r4", "sens/espirit"}
    assert joint.affine == pytest.approx(volume["seg/tissue"].affine)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tables_name_every_method_and_the_report_is_self_contained(demo: tuple[Path, str]) -> None:
    out, text = demo
    tables = {
        name: json.loads((out / "cohort" / "evaluations" / f"{name}.json").read_text())
        for name in ("reconstruction", "segmentation", "joint")
    }
    assert set(tables["reconstruction"]["summary"]) == {f"recon/{m}-r4" for m in ("zero-filled", "cg-sense", "varnet")}
    assert set(tables["joint"]["summary"]) == {"oracle", "before", "joint", "segmenter-only", "reconstruction-only"}
    assert "VarNet above zero-filled" in text
    page = (out / "report.html").read_text()
    parser = Resources()
    parser.feed(page)
    assert parser.found
    assert all(value.startswith("data:image/png;base64,") for value in parser.found)
    for method, row in tables["reconstruction"]["summary"].items():
        assert method in page
        assert f"{row['psnr']['mean']:.3f}" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_run_finds_everything_done(demo: tuple[Path, str]) -> None:
    out, _ = demo
    commits = {e.path: e.commit for v in mri_io.open_cohort(out / "cohort").volumes() for e in v.elements().values()}
    text = cli("demo", "--size", "tiny", "--out", str(out))
    assert "convert: 0 done, 4 skipped, 0 failed" in text
    again = {e.path: e.commit for v in mri_io.open_cohort(out / "cohort").volumes() for e in v.elements().values()}
    assert again == commits
