"""Files for the fastMRI leaderboard: names, keys and shapes as its evaluation expects them, values as stored."""

import pickle

import h5py
import numpy as np
import pytest

from mri_io import create_cohort, open_cohort
from mri_io.convert import convert
from mri_io.errors import ConfigError, ElementExistsError
from mri_io.export import export, export_cohort, make_exporter
from mri_io.export.base import ExportItem
from mri_io.schema.attributes import Source
from mri_io.testing.hdf5_files import write_fastmri_file
from mri_io.testing.raw_files import random_kspace, xml_header

SHAPE = (3, 2, 40, 24)  # slices, coils, rows (readout, oversampled), columns


def centre_crop(data, shape):
    """Crop as the data set's own evaluation does, `fastmri.data.transforms.center_crop`, written out."""
    first = [(data.shape[axis] - size) // 2 for axis, size in zip((-2, -1), shape, strict=True)]
    return data[..., first[0] : first[0] + shape[0], first[1] : first[1] + shape[1]]


def evaluated(target, recons):
    """Return what the evaluation compares: both cropped to the square of the target's columns."""
    size = (target.shape[-1], target.shape[-1])
    return centre_crop(target, size), centre_crop(recons, size)


@pytest.fixture
def cohort(tmp_path, made, rng):
    """A validation and a test volume with a complex reconstruction over the whole field of view."""
    xml = xml_header(40, 20, rx=20)
    rss = rng.random((3, 20, 20), np.float32)
    write_fastmri_file(tmp_path / "file1000.h5", random_kspace(SHAPE), xml=xml, reconstruction_rss=rss)
    mask = np.arange(24) % 4 == 0
    write_fastmri_file(tmp_path / "file_brain_AXT2_200_1.h5", random_kspace(SHAPE) * mask, xml=xml, mask=mask)
    files = sorted(tmp_path.glob("*.h5"))
    assert convert(files, tmp_path / "c", progress=False).ok
    opened = open_cohort(tmp_path / "c")
    for volume in opened.volumes():
        image = (rng.standard_normal((3, 40, 24)) + 1j * rng.standard_normal((3, 40, 24))).astype(np.complex64)
        volume.write("recon/net", image, provenance=made)
    return opened


def test_the_evaluation_finds_and_compares_them(tmp_path, cohort):
    written = export_cohort(cohort, "recon/net", tmp_path / "out", "fastmri", progress=False).files
    folder = tmp_path / "out" / "recon-net"
    assert sorted(written) == [folder / "file1000.h5", folder / "file_brain_AXT2_200_1.h5"]
    for volume in cohort.volumes():
        with (
            h5py.File(tmp_path / volume.source.uri) as target,
            h5py.File(folder / volume.source.uri) as recons,
        ):
            assert list(recons) == ["reconstruction"]
            found = recons["reconstruction"][()]
            assert (found.dtype, found.shape) == (np.float32, (3, 20, 20))
            expected = np.abs(volume["recon/net"].numpy())
            np.testing.assert_allclose(found, centre_crop(expected, (20, 20)), rtol=1e-6)
            if "reconstruction_rss" in target:
                reference, compared = evaluated(target["reconstruction_rss"][()], found)
                assert reference.shape == compared.shape
                np.testing.assert_allclose(compared, evaluated(reference, expected)[1], rtol=1e-6)


def test_the_exporter_travels_after_it_has_told_the_names(cohort):
    exporter, item = make_exporter("fastmri"), ExportItem(cohort.volumes()[0]["recon/net"])
    names = exporter.names(item)
    there, its_item = pickle.loads(pickle.dumps((exporter, item)))
    assert there.names(its_item) == names
    assert there.memory(its_item) == exporter.memory(item) > 0


def test_elements_of_one_volume_do_not_share_a_file(tmp_path, cohort):
    for path in ("recon/net", "recon/rss"):
        assert export_cohort(cohort, path, tmp_path / "out", "fastmri", skip_existing=True, progress=False).files
    with h5py.File(tmp_path / "file1000.h5") as target, h5py.File(tmp_path / "out/recon-rss/file1000.h5") as recons:
        np.testing.assert_array_equal(recons["reconstruction"][()], target["reconstruction_rss"][()])


def test_the_reference_itself_comes_back_equal(tmp_path, cohort):
    (written,) = export_cohort(cohort, "recon/rss", tmp_path / "out", "fastmri", progress=False).files
    with h5py.File(written) as recons, h5py.File(tmp_path / "file1000.h5") as target:
        np.testing.assert_array_equal(recons["reconstruction"][()], target["reconstruction_rss"][()])


@pytest.mark.parametrize(("matrix", "columns", "expected"), [((20, 20), 15, (15, 15)), ((30, 11), 15, (30, 11))])
def test_crop_of_narrow_scans_and_of_odd_sizes(tmp_path, made, rng, matrix, columns, expected):
    xml = xml_header(40, matrix[1], rx=matrix[0])
    write_fastmri_file(tmp_path / "file1.h5", random_kspace((2, 2, 40, columns)), xml=xml)
    convert([tmp_path / "file1.h5"], tmp_path / "c", progress=False)
    (volume,) = open_cohort(tmp_path / "c").volumes()
    image = rng.random((2, 40, columns)).astype(np.float32)
    (file,) = export(volume.write("recon/a", image, provenance=made), tmp_path / "out", "fastmri")
    with h5py.File(file) as recons:
        np.testing.assert_array_equal(recons["reconstruction"][()], centre_crop(image, expected))


def test_hidden_names_give_way_to_the_volume(tmp_path, made):
    write_fastmri_file(tmp_path / "DOE_JOHN.h5", random_kspace(SHAPE), xml=xml_header(40, 20, rx=20))
    convert([tmp_path / "DOE_JOHN.h5"], tmp_path / "c", progress=False)
    (volume,) = open_cohort(tmp_path / "c").volumes()
    element = volume.write("recon/a", np.ones((3, 40, 24), np.float32), provenance=made)
    (file,) = export(element, tmp_path / "out", "fastmri")
    assert file.name == f"{volume.id}.h5"
    with pytest.raises(ElementExistsError, match="exists already"):
        export(element, tmp_path / "out", "fastmri")


@pytest.mark.parametrize(
    "uri", ["../escaped.h5", "{}/escaped.h5", "a/b.h5", "..\\escaped.h5", "C:escaped.h5", ".h5", ""]
)
def test_a_name_that_leads_elsewhere_gives_way_to_the_volume(tmp_path, made, uri):
    cohort, out = create_cohort(tmp_path / "c"), tmp_path / "in" / "out"
    source = Source(uri=uri.format(tmp_path), sha256="0" * 64, format="fastmri")
    with cohort.create_volume("sub-1_acq-a_run-1", subject_id="sub-1", source=source) as volume:
        volume.write("recon/rss", np.ones((3, 20, 20), np.float32), provenance=made)
    (file,) = export(cohort[volume.id]["recon/rss"], out, "fastmri")
    assert file == out / "recon-rss" / "sub-1_acq-a_run-1.h5"
    assert list(out.parent.rglob("*.h5")) == [file]
    assert not list(tmp_path.glob("*.h5"))


def test_refused(tmp_path, volume, made, cohort):
    image = np.ones((3, 4, 4), np.float32)
    small = cohort.volumes()[0].write("recon/small", image, provenance=made)
    ones = np.ones((3, 40, 24), np.uint8)
    labels = cohort.volumes()[0].write("seg/a", ones, provenance=made, labels={1: "a"})
    series = volume.write("recon/series", image[None], provenance=made, dims=("echo", "slice", "y", "x"))
    cases = [
        (small, {}, r"size of the reconstruction: expected at least \(20, 20\), got \(4, 4\)"),
        (series, {}, r"element for fastmri: expected an image, .* got recon/series"),
        (cohort.volumes()[0]["kspace"], {}, "element for fastmri: expected an image"),
        (labels, {}, "element for fastmri: expected a reconstruction, recon/NAME, got seg/a"),
        (volume.write("recon/a", image, provenance=made), {}, "volume for fastmri: expected one converted from a file"),
        (cohort.volumes()[0]["recon/net"], {"part": "phase"}, "part: expected magnitude, got phase"),
    ]
    for element, options, message in cases:
        with pytest.raises(ConfigError, match=message):
            export(element, tmp_path / "out", "fastmri", **options)
    assert not (tmp_path / "out").exists()


def test_without_a_known_size(tmp_path, made, cohort):
    source = Source(uri="file9.h5", sha256="0" * 64, format="fastmri")
    with cohort.create_volume("sub-09_acq-a_run-1", subject_id="sub-09", source=source) as volume:
        element = volume.write("recon/a", np.ones((3, 40, 24), np.float32), provenance=made)
    with pytest.raises(ConfigError, match="expected recon/rss or recon/esc in the volume, or a recon_matrix"):
        export(cohort[volume.id][element.path], tmp_path / "out", "fastmri")
