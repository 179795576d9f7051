"""The table of exporters, those of other packages, and options."""

import numpy as np
import pytest

from mri_io.errors import ConfigError, ElementNotFoundError
from mri_io.export import (
    ElementExporter,
    Exporter,
    ExportOptions,
    export,
    export_cohort,
    exporter_class,
    exporter_names,
    make_exporter,
    table,
)


class ShapeExporter(ElementExporter):
    """Writes the shape as text, all volumes to the names given."""

    name = "shape"
    summary = "The shape as text"
    options = frozenset({"dataset"})

    def names(self, item):
        return [f"{self.chosen.dataset or self.stem(item)}.txt", "more/extra.txt"][: 2 if self.chosen.dataset else 1]

    def write(self, item, targets):
        for target in targets:
            target.write_text(str(item.element.shape))


@pytest.fixture
def plugin(monkeypatch):
    """Register an exporter as an installed package does."""
    monkeypatch.setattr(table, "plugin_names", lambda group: ("shape",))
    monkeypatch.setattr(table, "load_plugin", lambda group, name: ShapeExporter)


def test_every_exporter_says_what_it_is():
    for name in exporter_names():
        kind = exporter_class(name)
        assert issubclass(kind, Exporter)
        assert kind.name == name
        assert 0 < len(kind.summary) < 120
        assert kind.gives in ("files", "a folder", "a data set")
        assert kind.options <= set(ExportOptions.model_fields) - {"part"}
        assert set(kind.parts) <= {"magnitude", "phase", "real", "imag", "complex"}
        assert isinstance(make_exporter(name), kind)


def test_the_table_is_printed(cli):
    out = cli("export", "--format", "list").out
    assert all(name in out for name in exporter_names())
    assert cli("export", "c", "image/t1").status == 2


def test_a_broken_package_does_not_hide_the_others(cli, monkeypatch):
    def load(group, name):
        if name == "broken":
            raise ConfigError("colours: cannot be loaded")
        return ShapeExporter

    monkeypatch.setattr(table, "plugin_names", lambda group: ("broken", "other", "shape"))
    monkeypatch.setattr(table, "load_plugin", load)
    done = cli("export", "--format", "list")
    assert done.status == 0
    assert "(colours: cannot be loaded)" in done.out
    assert "(mri_io.exporters 'other': expected an" in done.out  # what is registered is another one
    assert "The shape as text" in done.out
    assert all(name in done.out for name in exporter_names())


def test_another_package_registers_an_exporter(tiny, tmp_path, plugin):
    assert exporter_names()[-1] == "shape"
    element = tiny.volumes()[0]["image/t1"]
    (file,) = export(element, tmp_path, "shape")
    assert (file.name, file.read_text()) == ("sub-01_acq-tiny_run-1_image-t1.txt", "(3, 10, 8)")
    assert [path.name for path in export(element, tmp_path, "shape", dataset="x")] == ["x.txt", "extra.txt"]
    assert (tmp_path / "more" / "extra.txt").read_text() == "(3, 10, 8)"


def test_two_volumes_with_one_name_are_refused(tiny, tmp_path, plugin):
    with pytest.raises(ConfigError, match=r"(x|extra)\.txt: 3 of the volumes would be written to it. Name one of them"):
        export_cohort(tiny, "image/t1", tmp_path / "out", "shape", dataset="x", progress=False)
    assert not (tmp_path / "out").exists()


def test_what_is_registered_must_be_an_exporter_of_its_name(monkeypatch):
    monkeypatch.setattr(table, "plugin_names", lambda group: ("other",))
    for wrong in (ShapeExporter, 3):
        monkeypatch.setattr(table, "load_plugin", lambda group, name, wrong=wrong: wrong)
        with pytest.raises(ConfigError, match=r"mri_io\.exporters 'other': expected an Exporter named 'other'"):
            exporter_class("other")
    monkeypatch.setattr(table, "plugin_names", lambda group: ("nifti",))
    with pytest.raises(ConfigError, match="an installed package registers 'nifti', which mri-io has itself"):
        exporter_names()


def test_options_that_are_unknown_or_not_followed_are_errors(tiny, tmp_path):
    element = tiny.volumes()[0]["image/t1"]
    with pytest.raises(ConfigError, match="options of nifti: expected part, got source"):
        export(element, tmp_path, "nifti", source=tmp_path)
    with pytest.raises(ConfigError, match="colour: unknown key"):
        export(element, tmp_path, "nifti", colour="red")
    assert make_exporter("nifti", part=None).chosen == ExportOptions()


def test_parts_of_a_split_choose_volumes(tiny, tmp_path):
    options = {"progress": False, "split": "default"}
    files = export_cohort(tiny, "image/t1", tmp_path, "nifti", subjects="test", **options).files
    assert [file.name for file in files] == ["sub-03_acq-tiny_run-1_image-t1.nii.gz"]
    (file, *_) = export_cohort(tiny, "image/t1", tmp_path, "nifti", subjects="val", progress=False).files
    assert file.name[:6] == "sub-02"
    with pytest.raises(ElementNotFoundError, match="no volume of part 'test' has an element 'image/t2'"):
        export_cohort(tiny, "image/t2", tmp_path, "nifti", subjects="test", **options)
    with pytest.raises(ConfigError, match="part: expected train, val, test, got 'all'"):
        export_cohort(tiny, "image/t1", tmp_path, "nifti", subjects="all", **options)
    assert np.all([file.is_file() for file in files])
