"""The command that compresses coils: energy, what goes along, resumption, errors."""

import numpy as np
import pytest

from mri_io.errors import ConfigError
from mri_io.schema import Provenance
from mri_io.store import open_cohort
from mri_io.testing import tiny_cohort
from mri_recon.calibrate import calibrate
from mri_recon.compress import CompressionConfig, compress
from mri_recon.run import run


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort(tmp_path / "c", subjects=2, slices=2, coils=6)


@pytest.mark.parametrize("method", ["svd", "gcc"])
def test_compressed_volumes_keep_the_energy_and_work_with_the_other_commands(cohort, tmp_path, cli, method):
    out = tmp_path / "fewer"
    options = ("recon", "compress", cohort.path, out, "--set", f"method={method}", "--set", "coils=4")
    assert cli(*options).status == 0
    for volume in cohort.volumes():
        derived = open_cohort(out)[volume.id]
        before, after = volume["kspace"].numpy(), derived["kspace"].numpy()
        assert after.shape == (2, 4, *before.shape[2:])
        kept = np.linalg.norm(after) ** 2 / np.linalg.norm(before) ** 2
        assert 0.95 < kept < 1.0001
        assert kept == pytest.approx(derived["kspace"].attributes["energy_kept"], abs=0.03)
        np.testing.assert_array_equal(derived["seg/tissue"].numpy(), volume["seg/tissue"].numpy())
        assert derived["seg/tissue"].labels == volume["seg/tissue"].labels
        assert "sens/espirit" not in derived
        assert derived.header == volume.header
    assert "2 skipped" in cli(*options).out
    assert calibrate(out).ok
    assert run(out, method="cg-sense", name="x").ok
    made = np.abs(derived["recon/x"].numpy())
    true = np.abs(volume["recon/reference"].numpy())
    assert np.linalg.norm(made - true) < 0.15 * np.linalg.norm(true)


def test_other_options_need_replacement_and_mistakes_write_nothing(cohort, tmp_path):
    out = tmp_path / "fewer"
    assert compress(cohort.path, out, config=CompressionConfig(coils=3)).ok
    summary = compress(cohort.path, out, config=CompressionConfig(coils=2))
    assert "came from another computation" in summary.failures[0].error
    assert compress(cohort.path, out, config=CompressionConfig(coils=2), replace=True).ok
    assert open_cohort(out).volumes()[0]["kspace"].shape[1] == 2
    with pytest.raises(ConfigError, match="another folder"):
        compress(cohort.path, cohort.path)
    with pytest.raises(ConfigError, match="none of 2 volumes"):
        compress(cohort.path, tmp_path / "more", config=CompressionConfig(coils=7))


def test_gcc_needs_a_fully_sampled_axis(cohort, tmp_path):
    rng = np.random.default_rng(0)
    for volume in cohort.volumes():
        ny, nx = volume["kspace"].shape[-2:]
        mask = (rng.random((ny, nx)) < 0.5).astype(np.uint8)
        mask[ny // 2 - 4 : ny // 2 + 4, nx // 2 - 4 : nx // 2 + 4] = 1
        volume.write("mask/acquired", mask, dims=("ky", "kx"), provenance=Provenance.of("mri-io", "test"))
    summary = compress(cohort.path, tmp_path / "g", config=CompressionConfig(method="gcc"))
    assert "gcc needs an axis that is fully sampled" in summary.failures[0].error
    assert compress(cohort.path, tmp_path / "s").ok
