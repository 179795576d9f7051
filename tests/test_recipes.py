"""Every configuration that the project ships is valid and says how to use it."""

from pathlib import Path

import pytest

from mri_io.config import Config, load_config
from mri_joint.config import RunConfig as JointConfig
from mri_recon.config import RunConfig as ReconConfig
from mri_seg.config import RunConfig as SegConfig

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("packages/mri-cli/src/mri_cli/demo_configs/*.yaml")])
KINDS: dict[str, type[Config]] = {"recon": ReconConfig, "seg": SegConfig, "joint": JointConfig}


def test_there_are_some() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_valid(path: Path) -> None:
    text = path.read_text()
    kind = next(kind for kind in KINDS if f"mri-cli {kind} train COHORT --config" in text)
    assert path.name in text
    load_config(KINDS[kind], path)
