"""A package of somebody else: its format, element type and step by the commands, with it, without it, and broken."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mri_io import open_cohort, plugins, verify
from mri_io.config import Config
from mri_io.errors import ConfigError
from mri_io.plugins import load_plugin, plugin_names
from mri_io.prep import Step, get_step, run_step, step_names, steps
from mri_io.schema.elements import known_type
from mri_io.store.metadata import write_group
from mri_io.testing.packages import install_package

SPECTROSCOPY = '''
"""Free induction decays: the format .fid, the element type fid and the step apodise."""

import numpy as np
from mri_io.config import Config
from mri_io.errors import FormatError
from mri_io.formats import Format, RawElement, RawVolume
from mri_io.formats.base import identify
from mri_io.prep import Step, already_there
from mri_io.schema import Provenance
from mri_io.schema.elements import ArrayType, ElementType
from pydantic import Field


class FidFormat(Format):
    name = "fid"
    summary = "free induction decays (slices, samples)"

    def sniff(self, path):
        return path.is_file() and path.open("rb").read(4) == b"FID1"

    def identify(self, item):
        return identify(item.path, item.path.stem, "press")

    def read(self, item):
        with item.path.open("rb") as file:
            file.read(4)
            data = np.load(file)
        if data.ndim != 2:
            raise FormatError(f"{item.path}: expected two dimensions")
        return RawVolume((RawElement.of("fid/raw", data),))


def fid_type():
    dims = (("slice", "sample"),)
    data = ArrayType(dims, ("complex64",), "raw", 1)
    return ElementType("fid", 2, {"data": data}, steps={1: lambda old: {**old, "dwell_s": None}})


class Options(Config):
    rate: float = Field(default=0.1, gt=0)
    name: str = "apodised"


def run(volume, options):
    raw = volume["fid/raw"]
    made = Provenance.of("mri-spectro", "apodise", options, [raw])
    if already_there(volume, f"fid/{options.name}", made, replace=False):
        return {"status": "skipped"}
    if options.rate > 100:
        raise ValueError(f"{volume.path}: no signal is left")
    data = raw.numpy() * np.exp(-options.rate * np.arange(raw.shape[-1])).astype(np.float32)
    volume.write(f"fid/{options.name}", data, provenance=made)
    return {"status": "done"}


apodise = Step(
    "apodise", "fid/NAME: fid/raw under an exponential", Options, run, lambda volume, options: volume["fid/raw"].nbytes
)
'''
POINTS = {
    "mri_io.formats": {"fid": "mri_spectro:FidFormat"},
    "mri_io.element_types": {"fid": "mri_spectro:fid_type"},
    "mri_io.steps": {"apodise": "mri_spectro:apodise"},
}


@pytest.fixture(scope="module")
def spectro(tmp_path_factory):
    """The folder of the installed package."""
    folder = tmp_path_factory.mktemp("site")
    return install_package(folder, "mri-spectro", {"mri_spectro/__init__.py": SPECTROSCOPY}, POINTS)


@pytest.fixture
def raw(tmp_path):
    """Three raw files, and their content."""
    rng = np.random.default_rng(0)
    content = {}
    (tmp_path / "raw").mkdir()
    for n in range(1, 4):
        data = (rng.standard_normal((2, 8)) + 1j * rng.standard_normal((2, 8))).astype(np.complex64)
        with (tmp_path / "raw" / f"sub-{n:02d}.fid").open("wb") as file:
            file.write(b"FID1")
            np.save(file, data)
        content[f"sub-{n:02d}_acq-press_run-1"] = data
    return tmp_path / "raw", content


COMMANDS = """
import contextlib, io, json, sys
from mri_cli.__main__ import main

done = []
for arguments in json.load(sys.stdin):
    sys.argv = ["mri-cli", *arguments]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    done.append([status, out.getvalue(), err.getvalue()])
json.dump(done, sys.stdout)
"""


def cli(*commands, site=None) -> list[SimpleNamespace]:
    """Run commands, one after the other, in a process that finds the packages in a folder, or none but ours."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    given = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], input=given, capture_output=True, text=True, env=environment, check=True
    )
    return [SimpleNamespace(status=status, out=out, err=err) for status, out, err in json.loads(done.stdout)]


def test_a_package_brings_a_format_an_element_type_and_a_step(spectro, raw, tmp_path):
    folder, content = raw
    cohort = tmp_path / "c"
    apodise = ("prep", cohort, "apodise", "--set", "rate=0.5")
    formats, converted, listed, made, again, checked = cli(
        ("convert", "--format", "list"),
        ("convert", folder, cohort),
        ("prep", "list"),
        (*apodise, "--scheduler", "local:2"),
        apodise,
        ("verify", cohort),
        site=spectro,
    )
    assert "free induction decays" in formats.out
    assert (converted.status, converted.out) == (0, "convert: 3 done, 0 skipped, 0 failed\n")
    assert "apodise" in listed.out
    assert "rate, name" in listed.out
    assert (made.status, made.out) == (0, "apodise: 3 done, 0 skipped, 0 failed\n")
    assert "apodise: 3 volumes, up to 0.1 MB each" in made.err
    assert again.out == "apodise: 0 done, 3 skipped, 0 failed\n"
    window = np.exp(-0.5 * np.arange(8)).astype(np.float32)
    for volume_id, data in content.items():
        for name, expected in (("raw", data), ("apodised", data * window)):
            files = cohort / "volumes" / f"{volume_id}.zarr" / "fid" / name / "data"
            np.testing.assert_allclose(_read_by_zarr(files), expected, rtol=1e-6)
    assert checked.status == 0
    assert "3 volumes, 6 elements" in checked.out
    assert "all whole" in checked.out


def test_options_failures_and_choice_of_volumes(spectro, raw, tmp_path):
    folder, content = raw
    cohort = tmp_path / "c"
    some = ("--set", "name=other", "--volume", "sub-02_acq-press_run-1")
    gone = ("prep", cohort, "apodise", "--set", "name=gone")
    _, one, failed, wrong = cli(
        ("convert", folder, cohort),
        ("prep", cohort, "apodise", *some),
        (*gone, "--set", "rate=200"),
        ("prep", cohort, "apodise", "--set", "width=1"),
        site=spectro,
    )
    assert one.out == "apodise: 1 done, 0 skipped, 0 failed\n"
    assert failed.status == 1
    assert "apodise: 0 done, 0 skipped, 3 failed\n  failed: 3 alike (" in failed.out
    rows = [json.loads(line) for line in (cohort / "failures.jsonl").read_text().splitlines()]
    assert [(row["item"], row["stage"]) for row in rows] == [(volume_id, "apodise") for volume_id in content]
    assert wrong.status == 2
    assert "width: unknown key" in wrong.err
    assert cli(gone, site=spectro)[0].status == 0
    assert (cohort / "failures.jsonl").read_text() == ""


def _read_by_zarr(folder):
    import zarr

    return zarr.open_array(folder, mode="r")[...]


def test_without_the_package_its_elements_are_left_out_and_it_is_said(spectro, raw, tmp_path, caplog):
    cohort = tmp_path / "c"
    assert cli(("convert", raw[0], cohort), site=spectro)[0].status == 0
    from mri_io.store.volume import _warn_unknown

    _warn_unknown.cache_clear()
    for volume in open_cohort(cohort).volumes():
        assert volume.elements() == {}
    assert caplog.text.count("elements of type 'fid' are left out: neither this release nor an installed package") == 1
    report = verify(cohort)
    assert (report.ok, report.unknown, report.elements, report.orphans) == (True, {"fid": 3}, 0, [])
    checked, unknown = cli(("verify", cohort), ("prep", cohort, "apodise"))
    assert checked.status == 0
    assert "3 elements of the type 'fid' are not checked: no installed package knows it" in checked.out
    assert unknown.status == 2
    assert "error: step: expected" in unknown.err
    assert "got 'apodise'" in unknown.err


def test_elements_of_an_older_version_of_the_package_are_read(spectro, raw, tmp_path):
    cohort = tmp_path / "c"
    assert cli(("convert", raw[0], cohort), site=spectro)[0].status == 0
    script = (
        "import sys\n"
        "from mri_io import open_cohort, verify\n"
        "from mri_io.store import migrate\n"
        "from mri_io.store.metadata import write_group\n"
        "cohort = open_cohort(sys.argv[1])\n"
        "element = cohort.volumes()[0]['fid/raw']\n"
        "write_group(element.folder, {**element.attributes, 'type_version': 1}, ('data',))\n"
        "found = cohort.volumes()[0]['fid/raw'].attributes\n"
        "assert (found['type_version'], found['dwell_s']) == (2, None), found\n"
        "assert [str(c) for c in migrate(cohort).changes] == ['sub-01_acq-press_run-1 fid/raw: fid 1 -> fid 2']\n"
        "assert verify(cohort).ok\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(spectro)}
    subprocess.run([sys.executable, "-c", script, str(cohort)], check=True, env=environment)


def test_broken_packages_are_named(raw, tmp_path):
    modules = {"mri_broken.py": "import nothing_of_that_name\n", "mri_wrong.py": "thing = 7\n"}
    points = {
        "mri_io.formats": {"fid": "mri_broken:FidFormat"},
        "mri_io.steps": {"apodise": "mri_broken:apodise", "seven": "mri_wrong:thing"},
    }
    site = install_package(tmp_path / "site", "mri-broken", modules, points)
    cohort = tmp_path / "c"
    converted, listed, *run = cli(
        ("convert", raw[0], cohort), ("prep", "list"), ("prep", cohort, "apodise"), ("prep", cohort, "seven"), site=site
    )
    assert listed.status == 0
    for word in ("apodise", "seven", "mri-broken"):
        assert word in listed.out
    start = "error: mri-broken: "
    for done, expected in zip(
        (converted, *run),
        (
            f"{start}mri_io.formats 'fid': mri_broken:FidFormat cannot be loaded: ModuleNotFoundError: No module",
            f"{start}mri_io.steps 'apodise': mri_broken:apodise cannot be loaded: ModuleNotFoundError: No module",
            "error: mri_io.steps 'seven': expected a Step named 'seven', got 7.",
        ),
        strict=True,
    ):
        assert done.status == 2
        assert expected in done.err
        assert "Traceback" not in done.err


class Point:
    """An entry point that needs no installed package."""

    def __init__(self, name, thing, package):
        self.name, self.value, self.thing = name, f"{package}:{name}", thing
        self.dist, self.module = SimpleNamespace(name=package), package

    def load(self):
        return self.thing


@pytest.fixture
def points(monkeypatch):
    """A list of entry points that stands for what is installed, for every group."""
    found: list[Point] = []
    for function in (plugins._found, plugins.load_plugin, plugins.plugin_instance):
        function.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    yield found
    for function in (plugins._found, plugins.load_plugin, plugins.plugin_instance):
        function.cache_clear()


def test_two_packages_with_one_name_are_refused(points):
    points += [Point("blur", 1, "mri-a"), Point("blur", 2, "mri-b")]
    with pytest.raises(ConfigError, match=r"mri_io.steps: mri-a and mri-b both register 'blur'. Uninstall one of them"):
        plugin_names("mri_io.steps")


def test_what_is_no_element_type_is_refused(points):
    points += [Point("fid", 7, "mri-a")]
    assert load_plugin("mri_io.element_types", "fid") == 7
    with pytest.raises(ConfigError, match=r"mri_io.element_types 'fid': expected an ElementType named 'fid', got 7"):
        known_type("fid")


def explode():
    raise RuntimeError("no licence")


def test_what_raises_is_named_and_its_elements_are_left_out(points, tiny, made, caplog):
    volume = tiny.volumes()[0]
    element = volume.write("image/a", np.ones((3, 10, 8), np.float32), provenance=made)
    write_group(element.folder, {**element.attributes, "type": "fid"}, ("data",))
    points += [Point("fid", explode, "mri-a")]
    message = r"mri-a: mri_io.{} 'fid': mri-a:fid fails: RuntimeError: no licence\. Mend or uninstall that package"
    with pytest.raises(ConfigError, match=message.format("element_types")):
        known_type("fid")
    with pytest.raises(ConfigError, match=message.format("steps")):
        get_step("fid")
    assert "image/t1" in volume.elements()
    assert "image/a" not in volume.elements()
    assert "mri-a:fid fails" in caplog.text


class Options(Config):
    """Options of the steps below."""

    share: float = 0.5


def test_steps_in_this_process(points, tiny):
    seen = []

    def run(volume, options) -> dict:
        seen.append((volume.id, options))
        return {"status": "done", "share": options.share}

    points += [
        Point("look", lambda: Step("look", "looks", Options, run, title=lambda o: f"look {o.share}"), "mri-a"),
        Point("wrong", Step("wrong", "returns nothing", Options, lambda volume, options: None), "mri-a"),
        Point("other", Step("misnamed", "", Options, run), "mri-a"),
    ]
    assert step_names() == ("look", "other", "wrong")
    summary = run_step(tiny, "look", {"share": 0.25}, part="val", progress=False)
    assert summary.description == "look 0.25"
    assert summary.results == [{"volume": tiny.volume_ids()[1], "status": "done", "share": 0.25}]
    assert seen == [(tiny.volume_ids()[1], Options(share=0.25))]
    assert run_step(tiny, "look", Options(), volumes=tiny.volume_ids()[:1], progress=False).ok
    with pytest.raises(ConfigError, match=r"step look:\s+size: unknown key"):
        run_step(tiny, "look", {"size": 1})
    (failure, *_) = run_step(tiny, "wrong", progress=False).failures
    assert failure.error == 'step wrong: result: expected {"status": "done" or "skipped"}, got None.'
    with pytest.raises(ConfigError, match="expected a Step named 'other'"):
        get_step("other")
    with pytest.raises(ConfigError, match=r"step: expected look, other, wrong, got 'none'\. Install the package"):
        run_step(tiny, "none")
    assert steps.STEPS == "mri_io.steps"
