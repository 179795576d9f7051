"""ISMRMRD: radial, spiral and other readouts with their trajectories."""

import ismrmrd
import numpy as np
import pytest

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.testing.ismrmrd_files import acquisition, scan_header, write_scan
from mri_io.testing.raw_files import random_kspace

SAMPLES = 8


def whole(element):
    """Put the blocks of an element together."""
    return np.concatenate([block.ravel() for block in element.blocks()]).reshape(element.shape)


def read(path, **choices):
    (item,) = find_items([path], choices=ReadOptions(**choices))
    raw = get_format("ismrmrd").read(item)
    return raw, {e.path: (whole(e), e) for e in raw.elements}


def spokes(angles, *, axes=2, radius=0.5):
    """Radial spokes (spoke, sample, axis)."""
    positions = np.linspace(-radius, radius, SAMPLES)
    found = np.zeros((len(angles), SAMPLES, axes), np.float32)
    found[..., 0] = np.cos(angles)[:, None] * positions
    found[..., 1] = np.sin(angles)[:, None] * positions
    return found


def shots(kspace, paths, counters, **head):
    """Readouts of (..., coil, shot, sample) with trajectories that broadcast to (..., shot, sample, axis)."""
    leading = kspace.shape[:-3]
    paths = np.broadcast_to(paths, (*leading, *paths.shape[-3:]))
    found = []
    for position in np.ndindex(*leading, kspace.shape[-2]):
        data = np.ascontiguousarray(kspace[(*position[:-1], slice(None), position[-1])])
        values = dict(zip((*counters, "kspace_encode_step_1"), position, strict=True))
        found.append(acquisition(data, trajectory=np.array(paths[position]), counters=values, **head))
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


CASES = {
    # counters, shape in front, trajectory differs along, dimensions of k-space, of the trajectory
    "slices": (("slice",), (2,), (), ("slice",), ()),
    "golden angle": (("repetition", "slice"), (3, 2), (0,), ("frame", "slice"), ("frame",)),
    "every slice its own": (("slice",), (2,), (0,), ("slice",), ("slice",)),
    "stack of stars": (("kspace_encode_step_2",), (4,), (), ("kz",), ()),
    "rotated stack": (("phase", "kspace_encode_step_2"), (2, 4), (0, 1), ("frame", "kz"), ("frame", "kz")),
    "echoes": (("contrast", "slice"), (2, 1), (), ("echo", "slice"), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_shots_with_their_trajectory(tmp_path, case):
    counters, leading, different, dims, of_path = CASES[case]
    kspace = random_kspace((*leading, 2, 5, SAMPLES))
    turns = np.zeros(leading)
    for axis in different:
        turns += np.arange(leading[axis]).reshape([-1 if a == axis else 1 for a in range(len(leading))]) * (axis + 1)
    angles = np.arange(5) * 0.6 + turns[..., None]
    paths = np.stack([spokes(row) for row in angles.reshape(-1, 5)]).reshape(*leading, 5, SAMPLES, 2)
    xml = scan_header((SAMPLES, SAMPLES, 4 if "kz" in dims else 1), trajectory="radial")
    raw, elements = read(write_scan(tmp_path / "a.h5", shots(kspace, paths, counters), xml))
    stored, element = elements["kspace"]
    assert element.dims == (*dims, "coil", "shot", "sample")
    np.testing.assert_array_equal(stored, kspace)
    path, element = elements["trajectory"]
    assert element.dims == (*of_path, "shot", "sample", "axis")
    index = tuple(slice(None) if name in of_path else 0 for name in dims)
    np.testing.assert_array_equal(path, paths[index])
    assert element.attributes == {"unit": "1/pixel"}
    assert elements["kspace"][1].attributes["trajectory"] == raw.header.trajectory == "radial"


def test_three_axes_make_one_list_of_shots(tmp_path):
    # Partitions of a 3-D trajectory are in the trajectory itself.
    kspace = random_kspace((4, 2, 5, SAMPLES))
    paths = np.stack([spokes(np.arange(5) + z, axes=3) for z in range(4)])
    paths[..., 2] = np.arange(4)[:, None, None] / 8
    made = shots(kspace, paths, ("kspace_encode_step_2",))
    _, elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 8, 4), trajectory="other")))
    np.testing.assert_array_equal(elements["kspace"][0], kspace.transpose(1, 0, 2, 3).reshape(1, 2, 20, SAMPLES))
    np.testing.assert_array_equal(elements["trajectory"][0], paths.reshape(20, SAMPLES, 3))


def test_averages_are_shots_of_their_own_and_ends_are_discarded(tmp_path):
    kspace = random_kspace((2, 2, 5, SAMPLES))
    paths = np.stack([spokes(np.arange(5) + a) for a in range(2)])
    made = shots(kspace, paths, ("average",), discard_pre=2, discard_post=1)
    made = sorted(made, key=lambda a: (a.idx.average, a.idx.kspace_encode_step_1))
    _, elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 8, 1), trajectory="spiral")))
    stored, element = elements["kspace"]
    # Line by line, both averages of each.
    np.testing.assert_array_equal(stored[0], kspace[..., 2:7].transpose(1, 2, 0, 3).reshape(2, 10, 5))
    np.testing.assert_array_equal(elements["trajectory"][0], paths[..., 2:7, :].swapaxes(0, 1).reshape(10, 5, 2))
    assert element.attributes["discarded_samples"] == [[2, 1]]


@pytest.mark.parametrize(("radius", "unit"), [(0.5, "1/pixel"), (4.0, "1/fov"), (900.0, "unknown")])
def test_units_are_known_by_the_size_of_coordinates(tmp_path, radius, unit):
    made = shots(random_kspace((1, 2, 5, SAMPLES)), spokes(np.arange(5), radius=radius), ("slice",))
    _, elements = read(write_scan(tmp_path / "a.h5", made, scan_header((8, 8, 1), trajectory="goldenangle")))
    assert elements["trajectory"][1].attributes["unit"] == unit


def test_noise_whitens_shots(tmp_path, rng):
    noise = np.array([[1, 0], [0.5, 2]]) @ (rng.standard_normal((2, 4000)) + 1j * rng.standard_normal((2, 4000)))
    noise = noise.astype(np.complex64)
    kspace = noise[:, : 25 * SAMPLES].reshape(1, 2, 25, SAMPLES)
    made = shots(kspace, spokes(np.arange(25)), ("slice",))
    made.append(acquisition(noise, flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,)))
    path = write_scan(tmp_path / "a.h5", made, scan_header((8, 8, 1), trajectory="radial"))
    stored, _ = read(path, noise="prewhiten")[1]["kspace"]
    flat = stored[0].reshape(2, -1)
    np.testing.assert_allclose(flat @ flat.conj().T / flat.shape[1], np.eye(2), atol=0.2)


def test_a_cohort_holds_shots_and_trajectory(tmp_path):
    kspace = random_kspace((2, 2, 2, 5, SAMPLES))
    paths = np.stack([spokes(np.arange(5) + f) for f in range(2)])[:, None]
    made = shots(kspace, paths, ("repetition", "slice"))
    path = write_scan(tmp_path / "a.h5", made, scan_header((8, 8, 1), trajectory="radial"))
    assert convert([path], tmp_path / "cohort", progress=False).ok
    cohort = open_cohort(tmp_path / "cohort")
    volume = cohort[cohort.volume_ids()[0]]
    np.testing.assert_array_equal(volume["kspace"].numpy(), kspace)
    np.testing.assert_array_equal(volume["trajectory"].numpy(), paths[:, 0])


BAD = {
    "uneven": (lambda m: m[1:], "shots of a slice, partition or frame: expected the same number in each, got"),
    "two lengths": (
        lambda m: [*m, acquisition(random_kspace((2, 6)), trajectory=np.zeros((6, 2), np.float32))],
        "number_of_samples of the readouts: expected one value",
    ),
    "one without": (
        lambda m: [*m, acquisition(random_kspace((2, SAMPLES)))],
        r"trajectory: expected 2 or 3 axes, got \[0, 2\] axes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_scans_are_refused(tmp_path, case):
    change, message = BAD[case]
    made = shots(random_kspace((2, 2, 5, SAMPLES)), spokes(np.arange(5)), ("slice",))
    path = write_scan(tmp_path / "a.h5", change(made), scan_header((8, 8, 1), trajectory="radial"))
    with pytest.raises(FormatError, match=rf"a\.h5: {message}"):
        read(path)
