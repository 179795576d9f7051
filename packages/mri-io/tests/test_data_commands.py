"""The data commands as a person meets them: what they print, their exit status, errors of one line, help."""

import json
import re
from itertools import takewhile

import numpy as np
import pytest

from mri_io import create_cohort, open_cohort
from mri_io.formats import format_names
from mri_io.formats.table import formats
from mri_io.schema import Provenance
from mri_io.testing import flip_bit, tiny_cohort
from mri_io.testing.raw_files import random_kspace, write_fastmri


@pytest.fixture
def cohort(tmp_path):
    return tiny_cohort(tmp_path / "c", subjects=3, matrix=(16, 12))


def cells(text):
    """Return the rows of a printed table, heads first."""
    rows = [line.strip("│┃").replace("┃", "│").split("│") for line in text.splitlines() if line[:1] in "│┃" and line]
    return [[cell.strip() for cell in row] for row in rows]


def walk():
    """Yield every command of the host with the words that call it."""
    typer = pytest.importorskip("typer")
    host = pytest.importorskip("mri_cli.__main__")
    root = typer.main.get_command(host.app)
    context = typer.Context(root)
    pending = [((name,), root.resolve_command(context, [name])[1]) for name in root.list_commands(context)]
    while pending:
        words, command = pending.pop()
        if hasattr(command, "commands"):
            pending += [((*words, name), child) for name, child in command.commands.items()]
        yield words, command


def test_every_option_of_every_command_is_described():
    commands = dict(walk())
    expected = "simulate phantom|convert|ls|info|verify|gc|index|split|stats|export|resample|report"
    expected += "|recon run|seg run|joint run"
    assert {tuple(words.split()) for words in expected.split("|")} <= set(commands)
    for words, command in commands.items():
        summary = (command.help or "").strip().splitlines()[0]
        assert summary.endswith((".", ")")), words
        for parameter in command.params:
            assert (getattr(parameter, "help", None) or "").strip(), (words, parameter.name)


@pytest.mark.parametrize(
    "words",
    [
        "simulate phantom",
        "simulate brains",
        "convert",
        "ls",
        "info",
        "verify",
        "gc",
        "index",
        "split",
        "stats",
        "export",
        "report",
    ],
)
def test_help_lists_the_options(cli, words):
    done = cli(*words.split(), "--help")
    assert (done.status, done.err) == (0, "")
    (command,) = [command for found, command in walk() if " ".join(found) == words]
    for parameter in command.params:
        assert (parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name) in done.out.lower()
    assert cli(*words.split(), "--no-such-option").status == 2


def test_from_a_phantom_to_a_listing(cli, tmp_path):
    sizes = ("--subjects", 2, "--slices", 1, "--matrix", 16, 12, "--coils", 2)
    done = cli("simulate", "phantom", tmp_path / "raw", *sizes, "--seed", 3)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"2 raw files in {tmp_path / 'raw'}, label maps in {tmp_path / 'raw' / 'labels'}\n"
    convert = ("convert", tmp_path / "raw", tmp_path / "c", "--labels", tmp_path / "raw" / "labels")
    assert cli(*convert).out == "convert: 2 done, 0 skipped, 0 failed\n"
    again = cli(*convert)
    assert (again.status, again.out) == (0, "convert: 0 done, 2 skipped, 0 failed\n")
    assert re.fullmatch(r"convert: 2 volumes, up to \d.* free\n", again.err)
    table = cells(cli("ls", tmp_path / "c").out)
    assert table[0] == ["volume", "subject", "part", "elements", "MB"]
    assert [row[:2] for row in table[1:]] == [[f"sub-0{n}_acq-PHANTOM_run-1", f"sub-0{n}"] for n in (1, 2)]
    assert table[1][3] == "kspace, recon/rss, seg/ellipses"
    rows = json.loads(cli("ls", tmp_path / "c", "--json").out)
    sizes = [sum(f.stat().st_size for f in v.path.rglob("*/c/**/*") if f.is_file()) for v in open_volumes(tmp_path)]
    assert all(0 < row["bytes"] - size < 30_000 for row, size in zip(rows, sizes, strict=True))  # and the metadata
    assert rows[0]["elements"] == ["kspace", "recon/rss", "seg/ellipses"]


def open_volumes(folder):
    return open_cohort(folder / "c").volumes()


def test_a_file_that_fails_is_named_and_the_others_arrive(cli, tmp_path):
    write_fastmri(tmp_path / "sub-01.h5", random_kspace((2, 3, 12, 8)))
    bad = write_fastmri(tmp_path / "sub-02.h5", random_kspace((2, 3, 12, 8)), mask=np.ones(5))
    done = cli("convert", tmp_path / "sub-01.h5", bad, tmp_path / "c")
    assert done.status == 1
    failure = f"{bad}: mask length: expected 8 columns, got 5."
    assert done.out == f"convert: 1 done, 0 skipped, 1 failed\n  failed: sub-02.h5: {failure}\n"
    info = cli("info", tmp_path / "c").out
    assert re.search(rf"failures: 1\n +sub-02.h5: convert: {re.escape(failure)}\n", info)
    write_fastmri(bad, random_kspace((2, 3, 12, 8)))
    assert cli("convert", tmp_path / "sub-01.h5", bad, tmp_path / "c").status == 0
    assert "failures: none" in cli("info", tmp_path / "c").out


def test_info_of_a_cohort_and_of_a_volume(cli, cohort):
    cohort.write_evaluation("one", task="recon", rows=[])
    text = cli("info", cohort.path).out
    for line in ("name: tiny", "volumes: 3", "subjects: 3", "splits: default", "evaluations: one", "failures: none"):
        assert line in text
    assert ["kspace", "3", "(2, 4, 16, 12)", "complex64"] in [row[:4] for row in cells(text)]
    volume = cohort.volumes()[0]
    texts = [cli("info", cohort.path, "--volume", volume.id).out, cli("info", volume.path).out]
    assert texts[0] == texts[1]
    row = next(row for row in cells(texts[0]) if row[0] == "seg/tissue")
    assert row[1:5] == ["slice 2, y 16, x 12", "uint8", "2 x 2 x 5", "1 outer, 2 inner"]
    assert row[6].startswith("tiny_cohort (mri-io ")
    assert "recon_matrix: 12, 16, 1" in texts[0]
    content = json.loads(cli("info", volume.path, "--json").out)
    commits = {element["path"]: element["commit"] for element in content["elements"]}
    assert commits == {path: element.commit for path, element in volume.elements().items()}


def test_damaged_volumes_are_lines_of_the_lists(cli, cohort):
    first, second, third = cohort.volumes()
    flip_bit(first.path / "zarr.json", 200)
    flip_bit(second["kspace"].folder / "zarr.json", 200)
    rows = {row[0]: row for row in cells(cli("ls", cohort.path).out) if row[0].startswith("sub-")}
    for volume in (first, second):
        assert rows[volume.id][3].startswith("damaged:")
    assert rows[third.id][3].startswith("image/t1")
    assert [row["volume"] for row in json.loads(cli("ls", cohort.path, "--json").out)] == sorted(rows)
    text = cli("info", cohort.path).out
    assert "volumes: 3" in text
    for volume in (first, second):
        assert f"damaged: {volume.id}: " in text
    assert list(json.loads(cli("info", cohort.path, "--json").out)["damaged"]) == [first.id, second.id]


@pytest.mark.parametrize("name", ["kidney [left]", "[/left] :brain:"])
def test_names_are_printed_as_they_are(cli, cohort, name):
    volume = cohort.volumes()[0]
    labels = np.ones((2, 16, 12), np.uint8)
    made = Provenance(method="test", package="mri-io", version="0")
    volume.write("seg/b", labels, provenance=made, labels={1: name})
    assert f"1 {name}" in cli("info", volume.path).out


def test_verify_says_what_is_damaged(cli, cohort):
    done = cli("verify", cohort.path)
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(r"3 volumes, 15 elements, 0\.1 MB: all whole\n", done.out)
    volume = cohort.volumes()[1]
    shard = next(file for file in (volume.path / "kspace" / "data" / "c").rglob("*") if file.is_file())
    flip_bit(shard, 8 * 1000)
    quick, slow = cli("verify", cohort.path, "--fast"), cli("verify", cohort.path)
    assert quick.status == 0  # looks at no data
    assert slow.status == 1
    assert slow.out.endswith(": 1 problem\n")
    assert slow.err.startswith(f"checksum: {volume.id} kspace: {shard}")
    alone = cli("verify", volume.path)
    assert alone.status == 1
    assert re.fullmatch(r"1 volume, 5 elements, 0\.0 MB: 1 problem\n", alone.out)
    assert cli("verify", cohort.volumes()[0].path).status == 0
    shard.unlink()
    assert cli("verify", cohort.path, "--fast").err.startswith(f"missing: {volume.id} kspace: ")
    (cohort.path / "cohort.json").unlink()
    assert "missing:  cohort.json: " in cli("verify", cohort.path).err


def test_gc_removes_what_a_killed_writer_left(cli, cohort):
    orphan = cohort.volumes_path / "sub-9_acq-x_run-1.zarr"
    (orphan / "kspace").mkdir(parents=True)
    assert f"1 orphan of interrupted writers, invisible to readers: mri-cli gc {cohort.path}" in (
        cli("verify", cohort.path).out
    )
    assert cli("gc", cohort.path, "--dry-run").out == f"{orphan}\n1 would be removed\n"
    assert orphan.exists()
    assert cli("gc", cohort.path).out == f"{orphan}\n1 removed\n"
    assert not orphan.exists()
    assert cli("gc", cohort.path).out == "0 removed\n"
    assert cli("verify", cohort.path).status == 0


def test_failures_of_work_that_nobody_does_again_are_removed(cli, cohort):
    cohort.record_failure("sub-9_acq-x_run-1", "no k-space", "calibrate espirit")
    listed = "sub-9_acq-x_run-1: no k-space\n1 {}removed\n"
    assert cli("gc", cohort.path, "--failures", "calibrate espirit", "--dry-run").out == listed.format("would be ")
    assert cohort.failures()
    assert cli("gc", cohort.path, "--failures", "calibrate espirit").out == listed.format("")
    assert not cohort.failures()
    assert cli("gc", cohort.path, "--failures", "calibrate espirit").status == 1


def test_an_empty_source_is_not_the_current_folder(cli, cohort, tmp_path):
    done = cli("convert", "", tmp_path / "new")
    assert (done.status, "got an empty name" in done.err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_a_share_too_small_for_a_subject_is_pointed_out(cli, cohort):
    done = cli("split", cohort.path, "--train", 0.9, "--val", 0.05, "--test", 0.05, "--name", "small")
    assert done.status == 0
    assert "warning: too few subjects for the share of" in done.err
    assert "too few" not in cli("split", cohort.path, "--train", 1, "--val", 1, "--test", 1, "--name", "small").err


def test_index_and_split(cli, cohort):
    done = cli("split", cohort.path, "--train", 1, "--val", 1, "--test", 1, "--seed", 5, "--name", "other")
    assert (done.status, done.out) == (0, "other: 1 train, 1 val, 1 test subjects\n")
    assert cli("index", cohort.path).out == "3 volumes indexed\n"
    rows = [json.loads(line) for line in (cohort.path / "index.jsonl").read_text().splitlines()]
    split = cohort.split("other")
    for row in rows:
        assert row["subject"] in split.subjects(row["split"]["other"])
    before = split.hash
    assert cli("split", cohort.path, "--train", 1, "--val", 1, "--test", 1, "--seed", 5, "--name", "other").err == ""
    assert cohort.split("other").hash == before


def test_statistics_are_those_of_the_training_part(cli, cohort):
    table = cells(cli("stats", cohort.path, "--element", "kspace", "--element", "image/t1").out)
    assert table[0] == ["element", "mean", "sd", "1st percentile", "99th percentile", "n", "volumes"]
    (train,) = cohort.volumes("default", "train")
    for row, path in zip(table[1:], ("kspace", "image/t1"), strict=True):
        values = np.abs(train[path].numpy()).astype(np.float64)
        expected = [values.mean(), values.std(), *np.percentile(values, (1, 99)), values.size, 1]
        np.testing.assert_allclose([float(cell) for cell in row[1:]], expected, rtol=1e-4)
    stored = json.loads((cohort.path / "stats" / "default.json").read_text())
    assert set(stored["fields"]) == {"kspace", "image/t1"}
    assert [row[0] for row in cells(cli("stats", cohort.path).out)[1:]] == ["image/t1", "recon/reference"]


def test_every_reader_is_listed_with_what_it_reads(cli):
    done = cli("convert", "--format", "list")
    assert done.status == 0
    rows = cells(done.out)[1:]
    assert [row[0] for row in rows if row[0]] == list(format_names())
    for reader in formats().values():
        # A long summary goes on in rows without a name.
        start = next(number for number, row in enumerate(rows) if row[0] == reader.name)
        own = [rows[start], *takewhile(lambda row: not row[0], rows[start + 1 :])]
        assert " ".join(row[1] for row in own).split() == reader.summary.split() != []
        assert set(" ".join(row[2] for row in own).replace(",", " ").split()) == (
            reader.options | reader.options_when_named
        )


def test_export_and_report(cli, cohort, tmp_path):
    out = tmp_path / "out"
    done = cli("export", cohort.path, "recon/reference", out, "--part", "phase", "--volume", cohort.volume_ids()[0])
    assert (done.status, done.out) == (0, f"2 files in {out}\n")
    stem = "sub-01_acq-tiny_run-1_recon-reference_phase"
    assert sorted(file.name for file in out.iterdir()) == [f"{stem}.json", f"{stem}.nii.gz"]
    assert cli("export", cohort.path, "seg/tissue", out, "--format", "png").out == f"6 files in {out}\n"
    first = out / "sub-02_acq-tiny_run-1_seg-tissue_001.png"
    for other in out.glob("sub-0[13]*png"):
        other.unlink()
    again = cli("export", cohort.path, "seg/tissue", out, "--format", "png")
    assert again.status == 1
    assert "sub-02_acq-tiny_run-1_seg-tissue_000.png: exists already. To overwrite it: --replace" in again.err
    assert len(list(out.glob("*.png"))) == 2  # nothing was written before it was refused
    first.write_bytes(b"old")
    assert cli("export", cohort.path, "seg/tissue", out, "--format", "png", "--replace").status == 0
    assert first.read_bytes()[1:4] == b"PNG"
    done = cli("report", cohort.path)
    assert (done.status, done.out) == (0, f"{cohort.path / 'report.html'}\n")
    assert cli("report", cohort.path, "--out", tmp_path / "new" / "r.html", "--slice", 0).status == 0
    assert "slice 0." in (tmp_path / "new" / "r.html").read_text()


COHORT_COMMANDS = ("ls", "info", "verify", "verify --fast", "gc", "index", "split", "stats", "report", "export")


@pytest.mark.parametrize("command", COHORT_COMMANDS)
@pytest.mark.parametrize("kind", ["nothing", "a file", "another folder"])
def test_where_there_is_no_cohort(cli, tmp_path, command, kind):
    path = tmp_path / "x"
    if kind == "a file":
        path.touch()
    elif kind == "another folder":
        path.mkdir()
    more = ("image/t1", tmp_path / "out") if command == "export" else ()
    done = cli(*command.split()[:1], path, *command.split()[1:], *more)
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(rf"error: {path}: there is no cohort here.*\n", done.err)
    assert sorted(tmp_path.iterdir()) == ([] if kind == "nothing" else [path])


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("convert NONE NEW", 1, "NONE: there is no such file or folder."),
        ("convert FILE NEW", 1, "FILE: content: expected one of the formats "),
        ("convert FILE NEW --format gif", 2, "format: expected auto, "),
        ("info COHORT --volume x", 1, "COHORT: there is no volume 'x'. It has 3 volumes: sub-01_acq-tiny_run-1, "),
        ("split COHORT --train 0.5 --val 0.2 --test 0.2", 2, "fractions: expected three shares summing to 1, got (0.5"),
        ("split COHORT --train 5 --val 1 --test 1", 2, "expected three, at most 3 in all, got (5, 1, 1)."),
        ("split COHORT --train 1.5 --val 1 --test 1", 2, "sizes: expected shares that sum to 1, or whole numbers"),
        ("split COHORT --train -1 --val 1 --test 1", 2, "fractions: expected three shares summing to 1"),
        ("split COHORT --train nan", 2, "sizes: expected shares that sum to 1, or whole numbers, got (nan, 0.1, 0.1)"),
        ("split COHORT --test inf", 2, "sizes: expected shares that sum to 1, or whole numbers, got (0.8, 0.1, inf)"),
        ("split COHORT --seed -1", 2, "seed: expected a number from 0, got -1."),
        ("split COHORT --name a/b", 2, "name of a split: expected a plain file name, got 'a/b'."),
        ("stats COHORT --element qmap/t1", 1, "none of the 1 training volumes of split 'default' has 'qmap/t1'."),
        ("stats COHORT --split x", 1, "there is no split 'x'. Splits: default. Make one: mri-cli split COHORT"),
        ("export COHORT image/x OUT", 1, "no volume has an element 'image/x'. List them: mri-cli ls COHORT"),
        ("export COHORT kspace OUT", 2, "element for nifti: expected an image, reconstruction or label map"),
        ("export COHORT image/t1 OUT --format jpeg", 2, "format: expected "),
        ("export COHORT image/t1 OUT --volume x", 1, "there is no volume 'x'."),
        ("export COHORT image/t1 FILE", 1, "FILE: cannot write: Not a directory."),
        ("report COHORT --volume x", 1, "there is no volume 'x'."),
        ("report COHORT --slice -1", 2, "slice: expected a number from 0, got -1."),
        ("report COHORT --out FILE/r.html", 1, "FILE/r.html: cannot write: Not a directory."),
        ("simulate phantom FILE", 1, "FILE: cannot write: "),
        ("simulate phantom OUT --noise -1", 2, "simulation: expected positive numbers, noise >= 0, got subjects=4"),
        ("simulate phantom OUT --seed -1", 2, "seed: expected a number from 0, got -1."),
        ("simulate brains OUT --seed -1", 2, "seed: expected a number from 0, got -1."),
        ("export COHORT recon/reference OUT --format bart --part phase", 2, "part: expected complex, all that bart"),
        ("simulate brains OUT --matrix 15 16", 2, "simulation: expected positive numbers, an even matrix, noise >= 0"),
    ],
)
def test_mistakes_are_one_line(cli, cohort, tmp_path, command, status, message):
    (tmp_path / "FILE").touch()
    names = {name: str(tmp_path / name) for name in ("NONE", "NEW", "OUT", "FILE")} | {"COHORT": str(cohort.path)}

    def places(text):
        return re.sub("|".join(names), lambda found: names[found[0]], text)

    done = cli(*(places(word) for word in command.split()))
    assert (done.status, done.out) == (status, "")
    assert re.fullmatch(r"error: [^\n]+\n", done.err)
    assert places(message) in done.err
    assert {"OUT", "NEW"} & {file.name for file in tmp_path.iterdir()} <= set()


@pytest.mark.parametrize(
    "arguments",
    [(), ("convert",), ("convert", "only-one"), ("ls",), ("simulate",), ("export", "c", "image/t1"), ("x",)],
)
def test_wrong_use_exits_with_2(cli, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments)
    assert done.status == 2
    assert "Traceback" not in done.out + done.err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_cohort(cli, tmp_path):
    empty = create_cohort(tmp_path / "c").path
    assert cells(cli("ls", empty).out)[1:] == []
    assert "volumes: 0" in cli("info", empty).out
    assert cli("verify", empty).out == "0 volumes, 0 elements, 0.0 MB: all whole\n"
    assert cli("index", empty).status == 0
    assert cli("report", empty).status == 0
    assert cli("split", empty).out == "default: 0 train, 0 val, 0 test subjects\n"
    done = cli("stats", empty)
    assert (done.status, done.out) == (1, "")
    assert "the training part of split 'default' has no images. Name other elements: --element" in done.err
