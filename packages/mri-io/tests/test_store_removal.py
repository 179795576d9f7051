"""Removing volumes and elements, intact and damaged."""

import numpy as np
import pytest

from mri_io import verify
from mri_io.errors import CorruptElementError, ElementNotFoundError
from mri_io.schema import Provenance
from mri_io.store import remove


@pytest.fixture
def volume(tiny):
    """A volume with results of results, and an evaluation of one of them."""
    volume = tiny.volumes()[0]
    image = np.ones(volume["image/t1"].shape, np.float32)
    first = volume.write("recon/a", image, provenance=Provenance.of("mri-io", "a", inputs=[volume["image/t1"]]))
    second = volume.write("recon/b", image, provenance=Provenance.of("mri-io", "b", inputs=[first]))
    row = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": "b", "psnr": 1.0}
    tiny.write_evaluation("mine", task="recon", rows=[row], inputs=[second])
    return volume


def test_an_element_goes_and_what_depends_on_it_is_named(tiny, volume):
    there = set(volume.elements())
    removal = remove(tiny, volume.id, "recon/a")
    assert (removal.elements, removal.dependents, removal.evaluations) == (["recon/a"], ["recon/b"], [])
    assert set(volume.elements()) == there - {"recon/a"}
    removal = remove(tiny, volume.id, "image/t1")
    assert "recon/a" not in removal.dependents
    removal = remove(tiny, volume.id, "recon/b")
    assert (removal.dependents, removal.evaluations) == ([], ["mine"])
    assert verify(tiny).ok


def test_what_depends_on_it_over_others_is_named(tiny, volume):
    assert {"recon/a", "recon/b"} <= set(remove(tiny, volume.id, "image/t1").dependents)


def test_a_volume_goes(tiny, volume):
    there = sorted(volume.elements())
    removal = remove(tiny, volume.id)
    assert (removal.elements, removal.evaluations) == (there, ["mine"])
    assert volume.id not in tiny
    assert len(tiny) == 2
    assert verify(tiny).ok


def test_unknown_names_are_refused(tiny, volume):
    for arguments in (("x",), ("../volumes",), ("..",), (volume.id, "image/x"), (volume.id, "recon")):
        with pytest.raises(ElementNotFoundError, match=r"there is no (volume|element) "):
            remove(tiny, *arguments)
    assert len(tiny) == 3


@pytest.mark.parametrize("damage", ["garbage", "gone"])
def test_damaged_elements_and_volumes_can_be_removed(tiny, volume, damage):
    (volume.path / "recon/b/zarr.json").write_text("{")
    assert remove(tiny, volume.id, "recon/b").elements == ["recon/b"]
    root = volume.path / "zarr.json"
    if damage == "garbage":
        root.write_text("{")
        with pytest.raises(CorruptElementError, match=r"\(mri-cli remove COHORT VOLUME\)"):
            remove(tiny, volume.id, "recon/a")
    else:
        root.unlink()
    assert not verify(tiny).ok
    assert remove(tiny, volume.id).elements == []
    assert not volume.path.exists()
    assert verify(tiny).ok


def test_the_command(tiny, volume, cli):
    done = cli("remove", tiny.path, volume.id, "recon/a")
    assert done.status == 0
    assert done.out == f"removed: {volume.id}: recon/a\ncomputed from it: {volume.id} recon/b\n"
    done = cli("remove", tiny.path, volume.id)
    assert done.out.startswith(f"removed: {volume.id}: image/t1, ")
    assert done.out.endswith("measured on it: evaluation mine\n")
    done = cli("remove", tiny.path, volume.id)
    assert (done.status, done.out) == (1, "")
    assert f"there is no volume '{volume.id}'" in done.err
