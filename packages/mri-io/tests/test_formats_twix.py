"""Siemens raw data: every readout in its place, what is left out and stated, what is refused, and a real file."""

import numpy as np
import pytest
import twixtools

from mri_io import open_cohort
from mri_io.convert import convert
from mri_io.errors import FormatError
from mri_io.formats import ReadOptions, find_items, get_format
from mri_io.formats.base import RawElement
from mri_io.simulate.fourier import fft2c, ifft2c
from mri_io.testing.raw_files import NAME, PATIENT, random_kspace
from mri_io.testing.twix_files import BIRTHDAY, Readout, TwixScan, kspace_readouts, write_twix

COILS, LINES, COLUMNS = 3, 12, 16
SIZES = {"sKSpace.lBaseResolution": COLUMNS // 2, "sKSpace.lPhaseEncodingLines": LINES}
THREE_D = {"sKSpace.ucDimension": "0x4"}
KEEP = ReadOptions(oversampling="keep")


def scan(readouts, yaps=None, **more):
    return TwixScan(readouts, {**SIZES, **(yaps or {})}, **more)


def read(path, choices=KEEP):
    (item,) = find_items([path], choices=choices)
    assert item.format == "twix"
    raw = get_format("twix").read(item)
    arrays = {}
    for e in raw.elements:
        assert isinstance(e, RawElement)
        arrays[e.path] = np.concatenate([*e.blocks()]).reshape(e.shape)
    return raw, {e.path: e for e in raw.elements}, arrays


def written(tmp_path, *scans, vd=True):
    return write_twix(tmp_path / "meas.dat", *scans, vd=vd)


def shuffled(readouts, seed=0):
    order = np.random.default_rng(seed).permutation(len(readouts))
    return [readouts[i] for i in order]


@pytest.mark.parametrize("vd", [True, False])
def test_the_files_of_these_tests_are_what_twixtools_reads(tmp_path, vd):
    kspace = random_kspace((COILS, LINES, COLUMNS))
    readouts = kspace_readouts(kspace, flags=("ONLINE", "REFLECT"), position=(1.0, 2.0, 3.0), counters={"Eco": 2})
    path = written(tmp_path, scan(readouts), vd=vd)
    (found,) = twixtools.read_twix(str(path), parse_pmu=False, parse_geometry=False, verbose=False)
    assert len(found["mdb"]) == LINES
    assert found["hdr"]["MeasYaps"]["sKSpace"]["lBaseResolution"] == COLUMNS // 2
    for block in found["mdb"]:
        np.testing.assert_array_equal(block.data, kspace[:, block.cLin])
        assert (block.cEco, block.mdh.CenterCol, block.mdh.CenterLin) == (2, COLUMNS // 2, LINES // 2)
        assert block.get_active_flags() == ["ONLINE", "REFLECT"]
        assert block.mdh.SliceData.SlicePos.Tra == 3.0
    if vd:
        assert [channel.ChannelId for channel in found["mdb"][0].channel_hdr] == [0, 1, 2]


@pytest.mark.parametrize("vd", [True, False])
def test_lines_in_any_order(tmp_path, vd):
    kspace = random_kspace((COILS, LINES, COLUMNS))
    raw, elements, arrays = read(written(tmp_path, scan(shuffled(kspace_readouts(kspace))), vd=vd))
    assert [*elements] == ["kspace"]
    assert elements["kspace"].dims == ("slice", "coil", "ky", "kx")
    np.testing.assert_array_equal(arrays["kspace"], kspace[None])
    header = raw.header
    assert (header.encoded_matrix, header.recon_matrix) == ((16, 12, 1), (8, 12, 1))
    assert header.encoded_fov_m == pytest.approx((0.4, 0.16, 0.004))
    assert header.recon_fov_m == pytest.approx((0.2, 0.16, 0.004))
    assert (header.te_s, header.tr_s, header.ti_s) == ((0.003,), (0.01,), None)
    assert (header.vendor, header.sequence, header.field_T) == ("SIEMENS", "gre", 2.89)


def test_parameters_of_the_header(tmp_path):
    yaps = {
        "lContrasts": 2,
        "alTE[1]": 7000,
        "alTE[2]": 9999,  # of an earlier scan with more contrasts
        "alTI[0]": 900000,
        "sPrepPulses.ucInversion": "0x2",
        "sKSpace.dPhaseOversamplingForDialog": 0.5,
        "sKSpace.dSliceOversamplingForDialog": 1.0,
        "tSequenceFileName": '"%CustomerSeq%\\Doe_tfl"',  # may be named after someone
        **THREE_D,
    }
    meas = {"iNoOfFourierPartitions": 6, "adFlipAngleDegree": 30.0}
    kspace = random_kspace((6, COILS, LINES, COLUMNS))
    header = read(written(tmp_path, scan(kspace_readouts(kspace), yaps, meas=meas)))[0].header
    assert header.te_s == pytest.approx((0.003, 0.007))
    assert header.ti_s == pytest.approx((0.9,))
    assert header.flip_angle_rad == pytest.approx((np.pi / 6,))
    assert (header.encoded_matrix, header.recon_matrix) == ((16, 12, 6), (8, 8, 3))
    assert header.encoded_fov_m == pytest.approx((0.4, 0.24, 0.008))
    assert header.sequence == "tfl"


def test_oversampling_is_removed_in_the_image(tmp_path):
    image = random_kspace((COILS, LINES, COLUMNS))
    path = written(tmp_path, scan(kspace_readouts(fft2c(image).astype(np.complex64))))
    _, elements, arrays = read(path, ReadOptions())
    assert elements["kspace"].attributes["oversampling_removed"] == 2.0
    np.testing.assert_allclose(ifft2c(arrays["kspace"])[0], image[..., 4:12], atol=1e-5)
    _, elements, arrays = read(path, KEEP)
    assert elements["kspace"].attributes["oversampling_removed"] == 1.0
    assert elements["kspace"].attributes["oversampling"] == 2.0
    np.testing.assert_allclose(ifft2c(arrays["kspace"])[0], image, atol=1e-5)


def test_slices_lie_in_the_order_of_their_positions(tmp_path):
    # Interleaved: the counters say when a slice was measured; the normal is tilted, and positions lie off the origin.
    normal = np.array([0.0, 0.6, 0.8])
    half = np.arccos(0.8) / 2
    quaternion = (np.cos(half), -np.sin(half), 0.0, 0.0)  # about the first axis, which turns z to the normal
    kspace, heights = random_kspace((5, COILS, LINES, COLUMNS)), {0: 4.0, 1: -3.0, 2: 9.0, 3: 0.5, 4: -8.0}
    readouts = [
        readout
        for number, height in heights.items()
        for readout in kspace_readouts(
            kspace[number],
            counters={"Sli": number},
            position=tuple(np.array([50.0, 0, 0]) + height * normal),
            quaternion=quaternion,
        )
    ]
    _, elements, arrays = read(written(tmp_path, scan(shuffled(readouts))))
    assert elements["kspace"].shape == kspace.shape
    np.testing.assert_array_equal(arrays["kspace"], kspace[[4, 1, 3, 0, 2]])
    assert [block.shape for block in elements["kspace"].blocks()] == [(1, COILS, LINES, COLUMNS)] * 5


def test_averages_are_averaged(tmp_path):
    kspace = random_kspace((3, COILS, LINES, COLUMNS))
    readouts = [r for n in range(3) for r in kspace_readouts(kspace[n], counters={"Ave": n})]
    # The centre was measured once more often than the rest.
    readouts = [r for r in readouts if r.counters["Ave"] < 2 or r.counters["Lin"] in (5, 6)]
    _, elements, arrays = read(written(tmp_path, scan(readouts)))
    expected = kspace[:2].mean(0)
    expected[:, 5:7] = kspace[:, :, 5:7].mean(0)
    np.testing.assert_allclose(arrays["kspace"][0], expected, atol=1e-6)
    assert elements["kspace"].attributes["averages"] == 3
    assert [*elements] == ["kspace"]


def test_series_have_their_dimensions(tmp_path):
    lengths = {"Set": 2, "Rep": 2, "Phs": 3, "Eco": 2, "Sli": 2}
    kspace = random_kspace((*lengths.values(), COILS, LINES, COLUMNS))
    readouts = [
        readout
        for at in np.ndindex(*lengths.values())
        for readout in kspace_readouts(
            kspace[at], counters=dict(zip(lengths, at, strict=True)), position=(0.0, 0.0, float(at[-1]))
        )
    ]
    _, elements, arrays = read(written(tmp_path, scan(shuffled(readouts))))
    assert elements["kspace"].dims == ("set", "frame", "echo", "slice", "coil", "ky", "kx")
    assert elements["kspace"].attributes["frames"] == {"phases": 3, "repetitions": 2}
    # Frames go through the phases of the first repetition, then through those of the second.
    np.testing.assert_array_equal(arrays["kspace"], kspace.reshape(2, 6, 2, 2, COILS, LINES, COLUMNS))


def test_partitions_are_kz_and_centred(tmp_path):
    kspace = random_kspace((6, COILS, LINES, COLUMNS))
    # The first partition was not measured: slice partial Fourier, the centre being counter 2.
    readouts = [
        Readout(r.data, {**r.counters, "Par": r.counters["Par"] - 1}, centre=(8, 6, 2))
        for r in kspace_readouts(kspace)
        if r.counters["Par"]
    ]
    _, elements, arrays = read(written(tmp_path, scan(readouts, {**THREE_D, "sKSpace.lPartitions": 6})))
    assert elements["kspace"].dims == ("kz", "coil", "ky", "kx")
    np.testing.assert_array_equal(arrays["kspace"][1:], kspace[1:])
    assert not arrays["kspace"][0].any()
    assert elements["mask/acquired"].dims == ("kz", "ky", "kx")
    np.testing.assert_array_equal(arrays["mask/acquired"].all((1, 2)), [0, 1, 1, 1, 1, 1])


def test_slabs_of_partitions(tmp_path):
    kspace = random_kspace((2, 4, COILS, LINES, COLUMNS))
    readouts = [r for n in range(2) for r in kspace_readouts(kspace[n], counters={"Sli": n}, position=(0, 0, 30.0 * n))]
    _, elements, arrays = read(written(tmp_path, scan(readouts, {**THREE_D, "sKSpace.lPartitions": 4})))
    assert elements["kspace"].dims == ("slice", "kz", "coil", "ky", "kx")
    np.testing.assert_array_equal(arrays["kspace"], kspace)


def test_partial_fourier_and_asymmetric_echo_are_placed_by_the_centre(tmp_path):
    kspace = random_kspace((COILS, LINES, COLUMNS))
    # Lines from 3 on, columns from 5 on, of which the scanner marks the first two as not to be used.
    readouts = [
        Readout(kspace[:, line, 5:], {"Lin": line - 3}, centre=(3, 3, 0), cut_off=(2, 0)) for line in range(3, LINES)
    ]
    _, elements, arrays = read(written(tmp_path, scan(readouts)))
    expected = np.zeros_like(kspace)
    expected[:, 3:, 7:] = kspace[:, 3:, 7:]
    np.testing.assert_array_equal(arrays["kspace"][0], expected)
    np.testing.assert_array_equal(arrays["mask/acquired"], (expected[0] != 0))
    attributes = elements["kspace"].attributes
    assert attributes["partial_lines"] == [3, 12, 12]
    assert attributes["partial_columns"] == [7, 16, 16]
    # Of the columns without oversampling those from 4 on (7 .. 15 of 16) lie among measured samples.
    _, elements, arrays = read(tmp_path / "meas.dat", ReadOptions())
    assert elements["kspace"].shape == (1, COILS, LINES, 8)
    np.testing.assert_array_equal(arrays["mask/acquired"][5], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(arrays["mask/acquired"][:, 5], np.arange(LINES) >= 3)


def test_lines_of_parallel_imaging(tmp_path):
    kspace, other = random_kspace((COILS, LINES, COLUMNS)), random_kspace((COILS, LINES, COLUMNS), seed=1)
    image = [r for r in kspace_readouts(kspace) if r.counters["Lin"] % 3 == 0]
    both = [Readout(r.data, r.counters, ("ONLINE", "PATREFSCAN", "PATREFANDIMASCAN"), r.centre) for r in image[2:3]]
    only = [r for r in kspace_readouts(other, flags=("ONLINE", "PATREFSCAN")) if 4 <= r.counters["Lin"] < 8]
    short = [Readout(other[:, 0, :8], {"Lin": 1}, ("PATREFSCAN",), centre=(4, 6, 0))]
    _, elements, arrays = read(written(tmp_path, scan(only + short + image[:2] + both + image[3:])))
    mask = np.array([1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 0, 0])
    expected = kspace * mask[:, None]
    expected[:, [4, 5, 7]] = other[:, [4, 5, 7]]  # line 6 is one of the image's own
    np.testing.assert_array_equal(arrays["kspace"][0], expected)
    np.testing.assert_array_equal(arrays["mask/acquired"], mask)
    assert elements["mask/acquired"].dims == ("ky",)
    assert elements["mask/acquired"].attributes["acceleration"] == pytest.approx(12 / 7)
    assert elements["kspace"].attributes["reference_readouts"] == {"added": 3, "left out": 2}


def test_a_pattern_that_changes_from_frame_to_frame(tmp_path):
    kspace = random_kspace((3, COILS, LINES, COLUMNS))
    readouts = [
        r for n in range(3) for r in kspace_readouts(kspace[n], counters={"Rep": n}) if r.counters["Lin"] % 3 == n
    ]
    _, elements, arrays = read(written(tmp_path, scan(readouts)))
    mask = np.arange(LINES)[None] % 3 == np.arange(3)[:, None]
    assert elements["mask/acquired"].dims == ("frame", "ky")
    np.testing.assert_array_equal(arrays["mask/acquired"], mask)
    np.testing.assert_array_equal(arrays["kspace"][:, 0], kspace * mask[:, None, :, None])


def noise_readouts(rng, coupling, count=200, **more):
    shape = (count, COILS, 32)
    white = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    return [Readout(part.astype(np.complex64), flags=("NOISEADJSCAN",), **more) for part in coupling @ white]


def test_readouts_that_are_no_part_of_the_image_are_left_out_and_counted(tmp_path, rng):
    kspace = random_kspace((COILS, LINES, COLUMNS))
    others = [Readout(random_kspace((COILS, COLUMNS)), {"Seg": n}, ("PHASCOR", "REFLECT")[: n + 1]) for n in range(2)]
    others.append(Readout(random_kspace((COILS, 5)), {"Lin": 3}, ("RTFEEDBACK",)))
    sync = Readout(np.zeros((1, 16), np.complex64), flags=("SYNCDATA",))
    noise = noise_readouts(rng, np.eye(COILS), 4)
    path = written(tmp_path, scan([*noise, sync, *others, *kspace_readouts(kspace), sync]))
    _, elements, arrays = read(path)
    np.testing.assert_array_equal(arrays["kspace"][0], kspace)
    assert elements["kspace"].attributes["left_out"] == {"noise": 4, "phase correction": 2, "feedback": 1}
    np.testing.assert_array_equal(arrays["noise"], np.concatenate([r.data for r in noise], axis=1))


@pytest.mark.parametrize("own", [True, False])
def test_noise_makes_the_coils_white(tmp_path, rng, own):
    coupling = np.eye(COILS) + 0.4 * (rng.standard_normal((COILS, COILS)) + 1j * rng.standard_normal((COILS, COILS)))
    noise = noise_readouts(rng, coupling)
    # Data that are noise themselves, of a bandwidth that the dwell times tell.
    dwell_of_noise = 24.0 if own else 5.0  # 7680 us / 32 samples, and as in adjustments
    shape = (64, COILS, COLUMNS)
    white = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
    kspace = (coupling @ white).transpose(1, 0, 2) * np.sqrt(dwell_of_noise / 10.0)
    if own:
        dwell_of_noise = 240.0
        kspace *= np.sqrt(10)
    yaps = {"sKSpace.lPhaseEncodingLines": 64}
    image = kspace_readouts(kspace.astype(np.complex64))
    scans = [scan(noise + image, yaps)] if own else [scan(noise), scan(image, yaps)]
    path = written(tmp_path, *scans)
    _, elements, arrays = read(path, ReadOptions(oversampling="keep", noise="prewhiten"))
    assert elements["kspace"].attributes["prewhitened"] == {"bandwidth_ratio": pytest.approx(10 / dwell_of_noise)}
    assert elements["kspace"].attributes["measurement"] == {"number": len(scans), "of": len(scans)}
    flat = arrays["kspace"][0].reshape(COILS, -1)
    np.testing.assert_allclose(flat @ flat.conj().T / flat.shape[1], np.eye(COILS), atol=0.15)
    np.testing.assert_array_equal(arrays["noise"], np.concatenate([r.data for r in noise], axis=1))
    # Unasked, the coils stay as they are.
    np.testing.assert_array_equal(read(path)[2]["kspace"][0], kspace.astype(np.complex64))


def test_without_noise_nothing_is_whitened(tmp_path, rng):
    image = kspace_readouts(random_kspace((COILS, LINES, COLUMNS)))
    choices = ReadOptions(noise="prewhiten")
    with pytest.raises(FormatError, match=r"meas\.dat: noise: expected noise readouts .* got none\. .*--noise keep"):
        read(written(tmp_path, scan(image)), choices)
    # Noise of other coils is not that of these.
    other = [Readout(r.data[:2], flags=r.flags) for r in noise_readouts(rng, np.eye(COILS))]
    with pytest.raises(FormatError, match="noise: expected noise readouts"):
        read(written(tmp_path, scan(other), scan(image)), choices)
    assert "noise" not in read(tmp_path / "meas.dat")[1]


def bipolar(kspace, acquired):
    """Return readouts of three echoes, each of its columns `acquired`, the second reflected."""
    return [
        r
        for echo in range(3)
        for r in kspace_readouts(
            kspace[echo][..., acquired[echo]], counters={"Eco": echo}, flags=("REFLECT",) if echo == 1 else ()
        )
    ]


def test_reflected_echoes_are_turned_round(tmp_path):
    kspace = random_kspace((3, COILS, LINES, COLUMNS))
    # The centre, column COLUMNS / 2, is the sample of that number in both directions; column COLUMNS is column 0 again.
    forward = np.arange(COLUMNS)
    readouts = bipolar(kspace, [forward, (COLUMNS - forward) % COLUMNS, forward])
    _, elements, arrays = read(written(tmp_path, scan(readouts)))
    assert elements["kspace"].dims == ("echo", "slice", "coil", "ky", "kx")
    np.testing.assert_array_equal(arrays["kspace"][:, 0], kspace)
    assert elements["kspace"].attributes["reflected_echoes"] == [1]


def test_reflected_echoes_with_room_around_them_lie_around_their_centre(tmp_path):
    kspace = random_kspace((3, COILS, LINES, COLUMNS))
    short = COLUMNS - 4
    # Columns 2 .. COLUMNS - 3, and reflected COLUMNS - 2 .. 3.
    readouts = bipolar(kspace, [2 + np.arange(short), COLUMNS - 2 - np.arange(short), 2 + np.arange(short)])
    arrays = read(written(tmp_path, scan(readouts)), ReadOptions(oversampling="keep"))[2]
    expected = kspace.copy()
    expected[..., :2] = expected[..., COLUMNS - 1] = expected[1, ..., 2] = expected[::2, ..., COLUMNS - 2] = 0
    np.testing.assert_array_equal(arrays["kspace"][:, 0], expected)
    mask = np.broadcast_to(arrays["mask/acquired"], (LINES, COLUMNS))
    np.testing.assert_array_equal(np.flatnonzero(mask[0]), np.arange(3, COLUMNS - 2))


def test_the_last_measurement_with_an_image_is_read(tmp_path, rng):
    first, second = random_kspace((2, COILS, LINES, COLUMNS))
    scans = [scan(kspace_readouts(first)), scan(kspace_readouts(second)), scan(noise_readouts(rng, np.eye(COILS), 2))]
    _, elements, arrays = read(written(tmp_path, *scans))
    np.testing.assert_array_equal(arrays["kspace"][0], second)
    assert elements["kspace"].attributes["measurement"] == {"number": 2, "of": 3}
    with pytest.raises(FormatError, match=r"readouts: expected an image, got 4 of noise"):
        read(written(tmp_path, scans[2], scans[2]))


PLAIN = kspace_readouts(random_kspace((COILS, LINES, COLUMNS)))


def _changed(number, **changes):
    values = {name: getattr(PLAIN[number], name) for name in Readout.__dataclass_fields__}
    return [*PLAIN[:number], Readout(**{**values, **changes}), *PLAIN[number + 1 :]]


@pytest.mark.parametrize(
    ("readouts", "yaps", "meas", "message"),
    [
        (PLAIN, {"sFastImaging.lEPIFactor": 64}, {}, r"sequence: expected .*, got echo-planar imaging \(factor 64\)"),
        (PLAIN, {}, {"alRegridMode": "2 1"}, "readout: expected .*, got samples on gradient ramps"),
        (PLAIN, {"sKSpace.ucTrajectory": "0x2"}, {}, "trajectory: expected Cartesian, got radial"),
        (PLAIN, {"sKSpace.ucTrajectory": "0x4"}, {}, "trajectory: expected Cartesian, got spiral"),
        (PLAIN, {"sSliceAcceleration.lMultiBandFactor": 4}, {}, "got simultaneous multi-slice, 4 bands"),
        (PLAIN, {"sSpecPara.lVectorSize": 1024}, {}, "scan: expected imaging, got spectroscopy"),
        (PLAIN[:1], {}, {}, r"lines of k-space: expected several, got one \(spectroscopy"),
        (_changed(3, flags=("REFLECT",)), {}, {}, "direction of the readouts: .* got lines of both in echo 0"),
        (_changed(3, data=random_kspace((2, COLUMNS))), {}, {}, r"coils of the readouts: .* got \(2, 3\)"),
        (_changed(3, data=random_kspace((COILS, 8))), {}, {}, r"samples of the readouts: .* got \(8, 16\)"),
        (_changed(3, centre=(8, 5, 0)), {}, {}, r"centre of k-space \(Lin\): expected one, got \(5, 6\)"),
        (_changed(3, counters={"Lin": 60000}), {}, {}, r"counter Lin: expected 12 values .* got 0 \.\. 60000 around 6"),
        (_changed(3, counters={"Lin": 2, "Ida": 1}), {}, {}, "counter Ida: expected one value for a line, got 0 and"),
        (_changed(3, counters={"Lin": 3, "Sli": 1}, quaternion=(0.7071, 0.7071, 0, 0)), {}, {}, "several orientations"),
        (PLAIN, {"sKSpace.lBaseResolution": 6}, {}, "readouts: expected at most 12 columns .* got 16 samples"),
        (PLAIN, {"sKSpace.lBaseResolution": 99999999}, {}, "readouts: expected at most 199999998 columns"),
        (PLAIN, {"sKSpace.lPhaseEncodingLines": 99999999}, {}, "counter Lin: expected 99999999 values"),
        (PLAIN, {}, {"iNoOfFourierLines": 10**12}, "counter Lin: expected 1000000000000 values"),
        (
            [Readout(r.data, r.counters, ("REFLECT",), (4, 6, 0)) for r in PLAIN],
            {"sKSpace.lBaseResolution": 16},
            {},
            "reflected readouts: expected a symmetric echo",
        ),
        ([Readout(r.data, r.counters, (), r.centre, (9, 9)) for r in PLAIN], {}, {}, "cut-off of the readouts"),
        (PLAIN, {"alTE[99999999]": 1}, {}, r"readable parameters MeasYaps, got an array index \[99999999\]"),
        (PLAIN, {"alTE.x": 1}, {}, "protocol: expected readable parameters MeasYaps"),
    ],
)
def test_what_is_refused_by_name(tmp_path, readouts, yaps, meas, message):
    with pytest.raises(FormatError, match=rf"meas\.dat: .*{message}"):
        read(written(tmp_path, scan(readouts, yaps, meas={"alRegridMode": "1 1", **meas})))


@pytest.mark.parametrize("vd", [True, False])
def test_truncated_files(tmp_path, vd):
    path = written(tmp_path, scan(PLAIN), vd=vd)
    whole = path.read_bytes()
    for length in (70, 5000, 10240, 10250, 10400, 12000, 24000, len(whole) - 3000, len(whole) - 1000):
        if length < len(whole):
            path.write_bytes(whole[:length])
            with pytest.raises(FormatError, match=r"meas\.dat: .*(truncated|Leave the file out)"):
                read(path)
    with pytest.raises(FormatError, match="expected the end marker of a measurement"):
        read(written(tmp_path, scan(PLAIN, finished=False), vd=vd))


def test_damaged_headers_of_readouts(tmp_path):
    whole = written(tmp_path, scan(PLAIN)).read_bytes()
    start = 10240 + len(scan(PLAIN).protocol())
    for place, text in (
        (start + 48, b"\0\0"),
        (start + 48, b"\xff\xff"),
        (start + 50, b"\xff\xff"),
        (start, bytes(4) + whole[start + 4 : start + 40] + b"\x20"),  # data of synchronisation, of no length
    ):
        path = tmp_path / "meas.dat"
        path.write_bytes(whole[:place] + text + whole[place + len(text) :])
        with pytest.raises(FormatError, match=r"meas\.dat: "):
            read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1 2 3\n4 5 6\n" * 2000,
        bytes(20000),
        np.arange(6000, dtype="<f4").tobytes(),
        np.arange(6000, dtype="<u4").tobytes(),
        (3).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(20000),
    ],
)
def test_other_files_named_dat_are_not_taken(tmp_path, content):
    (tmp_path / "a.dat").write_bytes(content)
    assert not get_format("twix").sniff(tmp_path / "a.dat")
    assert not get_format("twix").sniff(tmp_path)


def test_nothing_of_the_patient_reaches_the_cohort(tmp_path):
    path = write_twix(tmp_path / f"meas_{NAME}.dat", scan(PLAIN))
    identity = get_format("twix").identify(find_items([path])[0])
    assert identity.patient == PATIENT
    assert {NAME, BIRTHDAY} <= set(identity.aliases)
    broken = write_twix(tmp_path / f"{NAME}_{PATIENT}_b.dat", scan(PLAIN[:1]))
    assert not convert([path, broken], tmp_path / "c", progress=False).ok
    (volume,) = open_cohort(tmp_path / "c").volumes()
    assert volume.subject_id == identity.subject
    assert volume["kspace"].shape == (1, COILS, LINES, COLUMNS // 2)
    for file in (tmp_path / "c").rglob("*"):
        assert not any(text in str(file) for text in (PATIENT, NAME))
        if file.is_file() and file.name != "failures.jsonl":
            content = file.read_bytes()
            assert not any(text.encode() in content for text in (PATIENT, NAME, "Plantedname", BIRTHDAY))
    assert PATIENT not in (tmp_path / "c" / "failures.jsonl").read_text()


@pytest.mark.realdata
def test_a_real_phantom(real_data, tmp_path):
    path = real_data / "twix" / "gre.dat"
    raw, elements, arrays = read(path, ReadOptions())
    assert [*elements] == ["kspace"]
    assert elements["kspace"].shape == (1, 2, 160, 160)
    (found,) = twixtools.read_twix(str(path), parse_pmu=False, parse_geometry=False, verbose=False)
    lines = np.stack([block.data for block in sorted(found["mdb"], key=lambda block: block.cLin)], axis=1)
    np.testing.assert_array_equal(read(path, KEEP)[2]["kspace"][0], lines)
    # The centre of k-space is in the middle, and the phantom with it.
    strength = np.abs(arrays["kspace"]).sum((0, 1))
    assert np.unravel_index(strength.argmax(), strength.shape) == (80, 80)
    image = np.sqrt((np.abs(ifft2c(arrays["kspace"][0])) ** 2).sum(0))
    inside = image > 0.3 * np.percentile(image, 99)
    assert 0.5 < inside.mean() < 0.75  # a disc of nearly the whole field of view
    np.testing.assert_allclose(np.argwhere(inside).mean(0), 80, atol=8)
    assert image[:8].mean() < 0.2 * image[inside].mean()
    assert raw.header.flip_angle_rad == pytest.approx((np.deg2rad(15),))
    assert convert([path], tmp_path / "c", progress=False).ok
    stored = b"".join(file.read_bytes() for file in (tmp_path / "c").rglob("*.json"))
    assert not any(text in stored for text in (b"Bonn", b"45385", b"2021062"))  # institution, serial number, date
