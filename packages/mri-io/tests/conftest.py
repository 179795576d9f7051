"""Cohorts that tests of the store share."""

import os
import tempfile

import numpy as np
import pytest

from mri_io import create_cohort
from mri_io.schema import Header, Provenance
from mri_io.store import Cohort, Volume
from mri_io.testing import tiny_cohort
from mri_io.testing.object_stores import S3Server

MADE = Provenance(method="test", package="mri-io", version="0", config={"a": 1})


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_disks():
    """Leave out fsync, which is most of the time of many small writes; what was written outlives a killed process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def made() -> Provenance:
    """Provenance of elements whose origin does not matter."""
    return MADE


@pytest.fixture
def volume(tmp_path) -> Volume:
    """A committed volume without elements."""
    cohort = create_cohort(tmp_path / "one", name="one")
    header = Header(recon_matrix=(5, 7, 3), te_s=(0.03,), vendor="SIEMENS")
    with cohort.create_volume("sub-01_acq-t1_run-1", subject_id="sub-01", header=header):
        pass
    return cohort["sub-01_acq-t1_run-1"]


@pytest.fixture
def tiny(tmp_path) -> Cohort:
    """Three subjects with all elements of the main job and small matrices."""
    return tiny_cohort(tmp_path / "tiny", subjects=3, slices=3, coils=2, matrix=(10, 8))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """A server that speaks S3, with the environment in which clients find it."""
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    with S3Server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        # What writers stage on the way to a server is in the folder for temporary files, which other processes share.
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("staged")))
        patch.setattr(tempfile, "tempdir", None)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def bucket(s3_server) -> str:
    """The URL of an empty bucket."""
    return s3_server.bucket()
