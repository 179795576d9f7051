"""The report: one page that fetches nothing, whose tables are the stored rows' statistics, whatever names hold."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from mri_io import create_cohort
from mri_io.errors import ConfigError, ElementNotFoundError
from mri_io.evaluation_tables import summary_cell
from mri_io.report import write_report
from mri_io.schema import Provenance
from mri_io.testing import tiny_cohort

VOID = {"meta", "img", "br", "link", "hr", "input"}
EVIL = "<script>alert('x')</script>\"'&<img src=http://evil.example/x.png>"
METHODS = ("recon/good", "recon/bad")


class Page(HTMLParser):
    """What a browser would make of the page: tags, what is fetched, text, tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.fetched, self.tables, self.words = [], [], [], [], []
        self.marked = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.open += [] if tag in VOID else [tag]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            if "best" in values.get("class", ""):
                self.marked.append((len(self.tables) - 1, len(self.tables[-1]) - 1, len(self.tables[-1][-1]) - 1))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def table(self, head):
        return next(table for table in self.tables if table[0][0] == head)


def read(path) -> Page:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|expression\(", text)
    for value in page.fetched:
        kind, _, data = value.partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            image.load()
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors(256)) > 5
    return page


@pytest.fixture
def cohort(tmp_path, rng):
    cohort = tiny_cohort(tmp_path / "c", subjects=4)
    rows = []
    for volume in cohort.volumes():
        reference = volume["recon/reference"]
        for path, noise in zip(METHODS, (0.01, 0.2), strict=True):
            image = (reference.numpy() + noise * rng.standard_normal(reference.shape)).astype(np.complex64)
            made = Provenance.of("mri-io", f"noise of {noise}", {"noise": noise}, inputs=[reference], seed=5)
            volume.write(path, image, provenance=made, affine=reference.affine)
            row = {"volume_id": volume.id, "subject_id": volume.subject_id, "method": path}
            rows.append(row | {"psnr": float(rng.normal(30, 2)), "ssim": 0.9, "nmse": float(rng.uniform(1e-3, 9e-3))})
    rows[1]["psnr"] = rows[3]["psnr"] = None
    cohort.write_evaluation("quality", task="recon", rows=rows, config={"part": "all"})
    return cohort


def test_tables_are_the_statistics_of_the_rows(cohort, tmp_path):
    overlaps = [
        {"volume_id": v.id, "subject_id": v.subject_id, "method": "seg/net", "label": label, "dice": value}
        for v, values in zip(cohort.volumes(), np.random.default_rng(1).uniform(0.5, 1, (4, 2)), strict=True)
        for label, value in zip(("outer", "inner"), values.tolist(), strict=True)
    ]
    failed = [{"volume_id": "sub-09_acq-t1_run-1", "error": "damaged"}]
    cohort.write_evaluation("overlap", task="seg", rows=overlaps, missing=failed)
    page = read(write_report(cohort, tmp_path / "new" / "report.html"))
    stored = cohort.evaluations()["quality"]["rows"]
    quality = next(table for table in page.tables if "psnr [dB] ↑" in table[0])
    assert quality[0] == ["method", "psnr [dB] ↑", "ssim ↑", "nmse ↓"]
    means = {}
    for row, method in zip(quality[1:], METHODS, strict=True):
        columns = {m: [r[m] for r in stored if r["method"] == method and r[m] is not None] for m in ("psnr", "nmse")}
        means[method] = {m: np.mean(values) for m, values in columns.items()}
        psnr = f"{np.mean(columns['psnr']):.3f} ± {np.std(columns['psnr'], ddof=1):.3f}"
        nmse = f"{np.mean(columns['nmse']):.5f} ± {np.std(columns['nmse'], ddof=1):.5f}"
        undefined = 4 - len(columns["psnr"])
        psnr += f" ({undefined} undefined)" if undefined else ""
        assert row == [method, psnr, "0.900 ± 0.000", nmse]
    best = {column: row for table, row, column in page.marked if page.tables[table] is quality and column != 2}
    assert METHODS[best[1] - 1] == max(METHODS, key=lambda m: means[m]["psnr"])
    assert METHODS[best[3] - 1] == min(METHODS, key=lambda m: means[m]["nmse"])
    table = next(table for table in page.tables if "dice ↑" in table[0])
    values = np.array([row["dice"] for row in overlaps]).reshape(4, 2)
    expected = [values.mean(axis=1), values[:, 0], values[:, 1]]  # of each volume, then of each class
    assert [row[-1] for row in table[1:]] == [f"{v.mean():.3f} ± {v.std(ddof=1):.3f}" for v in expected]
    assert [row[1] for row in table[1:]] == ["all", "outer", "inner"]
    assert "over 4 volumes of 4 subjects. part: all." in page.text
    assert "over 4 volumes of 4 subjects. 1 more could not be measured." in page.text


def test_the_provenance_of_every_element(cohort, tmp_path):
    page = read(write_report(cohort, tmp_path / "report.html"))
    rows = [row for table in page.tables if table[0][0] == "element" for row in table[1:]]
    elements = [element for volume in cohort.volumes() for element in volume.elements().values()]
    assert len(rows) == len(elements) == 4 * 7
    listed = {row[5]: row for row in rows}
    for element in elements:
        row = listed[element.commit[:8]]
        assert row[0] == element.path
        assert row[1] == " × ".join(f"{n} {s}" for n, s in zip(element.dims, element.shape, strict=True))
        assert row[2].startswith(element.provenance["method"])
        for item in element.provenance["inputs"]:
            assert f"{item['path']} ({item['commit'][:8]})" in row[3]
        assert json.loads(row[4]) == element.provenance["config"]


def test_volumes_their_parts_and_failures(cohort, tmp_path):
    cohort.record_failure("sub-09.h5", "the file is truncated", "convert")
    page = read(write_report(cohort, tmp_path / "report.html"))
    volumes = page.table("volume")[1:]
    assert [row[:3] for row in volumes] == [
        [v.id, v.subject_id, part] for v, part in zip(cohort.volumes(), ("train", "train", "val", "test"), strict=True)
    ]
    sizes = [sum(f.stat().st_size for f in v.path.rglob("c/**/*") if f.is_file()) / 1e6 for v in cohort.volumes()]
    np.testing.assert_allclose([float(row[5]) for row in volumes], sizes, atol=0.1)
    assert page.table("item")[1][:3] == ["sub-09.h5", "convert", "the file is truncated"]


def test_pictures_follow_the_choice_of_volume_and_slice(cohort, tmp_path):
    ids = cohort.volume_ids()

    def captions(**options):
        page = read(write_report(cohort, tmp_path / "report.html", **options))
        return re.findall(r"(sub-\S+), slice (\d+)\.", page.text), page

    everything, page = captions()
    assert everything == [(volume_id, "1") for volume_id in (ids[3], ids[2], ids[0], ids[1])]  # test, val, train
    chosen, page = captions(volumes=[ids[1]], slice=0)
    assert chosen == [(ids[1], "0")]
    assert "3 more volumes are not shown as pictures; choose with --volume." in page.text
    assert "Of the volumes above; the others with --volume." in page.text
    assert captions(volumes=[ids[1]], slice=99)[0] == [(ids[1], "1")]
    with pytest.raises(ConfigError, match="slice: expected a number from 0, got -1"):
        captions(slice=-1)
    with pytest.raises(ElementNotFoundError, match="there is no volume 'nobody'"):
        captions(volumes=["nobody"])


CURVES = """step,train/loss,val/psnr,lr-Adam
0,1.5,,0.1
1,0.7,,0.1
2,nan,20.5,0.1
3,0.2,inf,0.1,more,than,the,header
4,0.
"""


@pytest.mark.parametrize("name", ["varnet", "$x^$ and $", "_private", "学习", "<script>alert(1)"])
def test_training_curves_whatever_the_run_is_called(tmp_path, name):
    cohort = create_cohort(tmp_path / "c")
    for run, text in ((name, CURVES), ("empty", "")):
        (cohort.path / "runs" / run).mkdir(parents=True)
        (cohort.path / "runs" / run / "metrics.csv").write_text(text)
    page = read(write_report(cohort, tmp_path / "report.html"))
    assert len(page.fetched) == 1
    assert f"Runs: {name}." in page.text


def test_curves_are_the_finite_numbers_of_the_file(tmp_path):
    from mri_io.report.curves import read_curves

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text(CURVES)
    expected = {"train/loss": [(0, 1.5), (1, 0.7), (3, 0.2), (4, 0)], "val/psnr": [(2, 20.5)]}
    assert read_curves(tmp_path) == {"run": expected}


def test_without_anything_to_show(tmp_path):
    cohort = create_cohort(tmp_path / "c", name="bare")
    page = read(write_report(cohort, tmp_path / "report.html"))
    assert "No images yet." in page.text
    assert "Metrics" not in page.text
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("image/t1", np.eye(9, dtype=np.float32)[None], provenance=Provenance.of("mri-io", "test"))
    assert len(read(write_report(cohort, tmp_path / "report.html")).fetched) == 1


def test_an_image_equal_to_the_reference_has_an_undefined_psnr(cohort, tmp_path):
    row = {"volume_id": cohort.volume_ids()[0], "subject_id": "sub-01", "method": METHODS[0]}
    cohort.write_evaluation("exact", task="recon", rows=[row | {"psnr": float("inf"), "ssim": 1.0, "nmse": 0.0}])
    page = read(write_report(cohort, tmp_path / "report.html"))
    assert [METHODS[0], "undefined", "1.000", "0.000"] in [row for table in page.tables for row in table]


def test_names_are_never_markup(tmp_path):
    cohort = create_cohort(tmp_path / "c", name=EVIL, license=EVIL)
    made = Provenance(method=EVIL, package=EVIL, version=EVIL, config={EVIL: EVIL})
    image = np.random.default_rng(0).random((1, 12, 10)).astype(np.float32)
    with cohort.create_volume("sub-1_acq-x_run-1", subject_id="sub-1") as volume:
        volume.write("recon/reference", image, provenance=made)
        volume.write("seg/x", (image > 0.5).astype(np.uint8), provenance=made, labels={1: EVIL})
    metrics = {EVIL: {"unit": EVIL, "better": "lower", "description": EVIL}}
    row = {"volume_id": "sub-1_acq-x_run-1", "subject_id": EVIL, "method": EVIL, "label": EVIL, EVIL: 1.0}
    cohort.write_evaluation("<b>bold", task="seg", rows=[row], metrics=metrics, config={EVIL: EVIL})
    cohort.record_failure(EVIL, EVIL, EVIL)
    page = read(write_report(cohort, tmp_path / "report.html"))
    assert len(page.fetched) == 1
    assert "b" not in page.tags
    assert page.text.count(EVIL) >= 12


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (31.2344, 1.5, "31.234 ± 1.500"),
        (0.91239, None, "0.912"),
        (0.0, 0.0, "0.000 ± 0.000"),
        (0.04567, 0.01, "0.0457 ± 0.0100"),
        (0.000456, 0.0001, "0.000456 ± 0.000100"),
        (1.234e-9, 5e-10, "1.23e-09 ± 5.00e-10"),
        (-0.05, 0.2, "-0.0500 ± 0.2000"),
        (None, None, "undefined"),
    ],
)
def test_small_means_keep_three_digits(mean, std, expected):
    assert summary_cell({"mean": mean, "std": std, "undefined": 0}) == expected
