"""Calibration as a step of ``mri-cli prep``, and what the work on a volume says that it needs of memory."""

import numpy as np
import pytest

from mri_io.errors import ConfigError
from mri_io.prep import get_step, run_step
from mri_io.schema import Provenance
from mri_io.store import create_cohort
from mri_io.testing import tiny_cohort
from mri_io.testing.peak_memory import peak_growth
from mri_recon.calibrate import calibrate
from mri_recon.calibration import EspiritConfig
from mri_recon.config import VarNetConfig
from mri_recon.memory import calibration_memory, reconstruction_memory


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort(tmp_path / "c", subjects=2, slices=2, coils=3)


def test_the_step_is_the_command(cohort, capsys):
    options = {"espirit": {"kernel": 5, "crop": 0.8}, "name": "step"}
    summary = run_step(cohort, "calibrate", options)
    assert (summary.ok, summary.description) == (True, "calibrate step")
    assert "calibrate step: 2 volumes, up to 0.3 GB each" in capsys.readouterr().err
    calibrate(cohort.path, config=EspiritConfig(kernel=5, crop=0.8), name="command")
    for volume in cohort.volumes():
        np.testing.assert_array_equal(volume["sens/step"].numpy(), volume["sens/command"].numpy())
        assert volume["sens/step"].numpy().any()
        assert volume["sens/step"].provenance["config_hash"] == volume["sens/command"].provenance["config_hash"]
    # Each knows the other's work again.
    assert run_step(cohort, "calibrate", {**options, "name": "command"}, progress=False).count("skipped") == 2


@pytest.mark.parametrize("method", ["walsh", "inati", "low-resolution", "jsense"])
def test_every_method_writes_maps_as_command_and_as_step(cohort, cli, method):
    options = {"method": method, method.replace("-", "_"): {"support": 0.1}, "name": "step"}
    assert run_step(cohort, "calibrate", options, progress=False).ok
    assert cli("recon", "calibrate", cohort.path, "--method", method, "--set", "support=0.1").status == 0
    for volume in cohort.volumes():
        maps = volume[f"sens/{method}"].numpy()
        np.testing.assert_array_equal(volume["sens/step"].numpy(), maps)
        norm = np.linalg.norm(maps, axis=2)
        assert 0 < np.mean(norm > 0) < 1
        np.testing.assert_allclose(norm[norm > 0], 1, rtol=1e-4)
        assert volume[f"sens/{method}"].provenance["config"]["support"] == 0.1


def test_options_are_checked_before_the_work(cohort):
    with pytest.raises(ConfigError, match=r"espirit\.kernl: unknown key"):
        run_step(cohort, "calibrate", {"espirit": {"kernl": 5}})
    with pytest.raises(ConfigError, match=r"method: .*espirit"):
        run_step(cohort, "calibrate", {"method": "wlsh"})
    assert get_step("calibrate").summary.startswith("coil sensitivity maps")


def test_a_cohort_that_the_step_does_not_fit_is_refused_and_nothing_recorded(cohort, cli):
    for volume in cohort:
        volume.remove("kspace")
    refused = cli("prep", cohort.path, "calibrate")
    assert refused.status == 2
    assert "calibrate espirit: none of 2 volumes can be worked on. The first: " in refused.err
    assert "there is no element 'kspace'" in refused.err
    assert cli("recon", "calibrate", cohort.path).status == 2
    assert not cohort.failures()


def test_estimates_grow_with_the_data(cohort):
    volume = cohort.volumes()[0]
    slice_bytes = volume["kspace"].nbytes // 2
    assert calibration_memory(volume, 2) - calibration_memory(volume, 1) == 5 * slice_bytes
    estimated = reconstruction_memory(volume, VarNetConfig(sens_channels=8, channels=4))
    stored = reconstruction_memory(volume, VarNetConfig(coil_maps="stored", channels=4))
    pixels = slice_bytes // 8 // 3
    assert estimated - stored == 8 * pixels * (8 * 3 - 4)
    base, kernels = (reconstruction_memory(volume, method=name) for name in ("cg-sense", "grappa"))
    assert reconstruction_memory(volume, method="spirit") - kernels == 3 * slice_bytes  # coils by coils
    assert base < kernels


@pytest.mark.parametrize("method", ["cg-sense", "total-variation", "spirit"])
def test_a_method_takes_what_is_estimated(tmp_path, method):
    cohort = create_cohort(tmp_path / "large")
    rng = np.random.default_rng(0)
    kspace, maps = (
        rng.standard_normal((*shape, 2), np.float32).view(np.complex64)[..., 0]
        for shape in ((2, 12, 400, 320), (2, 1, 12, 400, 320))
    )
    made = Provenance.of("test", "test")
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("kspace", kspace, dims=("slice", "coil", "ky", "kx"), provenance=made)
        volume.write("sens/espirit", maps / 12**0.5, provenance=made)
    code = f"""
from mri_recon.methods import METHODS
from mri_recon.run import run
config = METHODS["{method}"].load()[0](iterations=2)
assert run(sys.argv[1], method="{method}", config=config).ok
"""
    claimed = reconstruction_memory(cohort.volumes()[0], method=method)
    used = peak_growth("import mri_io.prep.runner", code, [cohort.path])
    assert 0.6 * claimed < used < 1.05 * claimed
