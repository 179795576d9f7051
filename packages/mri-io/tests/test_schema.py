"""Schemas: valid themselves, fulfilled by every file that is written, and clear about what is wrong."""

import copy
import json
import math
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mri_io.errors import SchemaError, ShapeError
from mri_io.schema import ELEMENT_TYPES, Header, Provenance, Source, element_type
from mri_io.schema.elements import SHARD_BYTES
from mri_io.schema.readers import STEPS
from mri_io.schema.validation import SCHEMAS, load_schema, validate
from mri_io.store import build_index, compute_statistics

GOLDEN = Path(__file__).parent / "golden" / "store-1.1"
DOCS = Path(__file__).parents[3] / "docs" / "store-format.md"


def test_every_schema_file_is_listed():
    found = {Path(file.name).stem for file in files("mri_io.schema").joinpath("schemas").iterdir()}
    assert found == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_valid_and_explain_themselves(name):
    schema = load_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["description"]
    assert set(schema["required"]) <= set(schema["properties"])


def documents(path: Path) -> list[tuple[str, dict]]:
    """Return every metadata file of a cohort with the name of its schema, read by nothing of ours."""
    found = [("cohort", json.loads((path / "cohort.json").read_text()))]
    for folder, schema in (("splits", "split"), ("stats", "statistics"), ("evaluations", "evaluation")):
        found += [(schema, json.loads(file.read_text())) for file in (path / folder).glob("*.json")]
    found += [("index-row", json.loads(line)) for line in (path / "index.jsonl").read_text().splitlines()]
    for volume in (path / "volumes").glob("*.zarr"):
        for file in volume.rglob("zarr.json"):
            mri = json.loads(file.read_text())["attributes"].get("mri")
            if mri is not None:
                found.append(("volume" if file.parent == volume else "element", mri))
    return found


@pytest.mark.parametrize("made", ["golden", "now"])
def test_every_written_file_follows_its_schema(tiny, made):
    rows = [{"volume_id": "a", "subject_id": "sub-01", "method": "m", "psnr": 30.0, "ssim": None}]
    tiny.write_evaluation("one", task="recon", rows=rows)
    tiny.write_evaluation("empty", task="seg", rows=[])
    compute_statistics(tiny, ["image/t1", "recon/reference"])
    build_index(tiny)
    found = documents(GOLDEN if made == "golden" else tiny.path)
    for schema, content in found:
        jsonschema.validate(content, load_schema(schema), cls=jsonschema.Draft202012Validator)
    assert {schema for schema, _ in found} == set(SCHEMAS)
    if made == "golden":
        assert {content["type"] for schema, content in found if schema == "element"} == set(ELEMENT_TYPES)


def valid(schema: str, kind: str = "seg") -> dict:
    return copy.deepcopy(
        next(
            content
            for name, content in documents(GOLDEN)
            if name == schema and (name != "element" or content["type"] == kind)
        )
    )


WRONG = [
    ("cohort", ("name",), ..., r"\(top level\): 'name' is a required property"),
    ("cohort", ("name",), "", "name: '' should be non-empty"),
    ("cohort", ("schema_version",), 1.0, "schema_version: 1.0 is not of type 'string'"),
    ("cohort", ("created",), "yesterday", "created: 'yesterday' does not match"),
    ("volume", ("volume_id",), "brain-1", "volume_id: 'brain-1' does not match"),
    ("volume", ("subject_id",), "Doe^John", r"subject_id: 'Doe\^John' does not match"),
    ("volume", ("source", "sha256"), "abc", r"source\.sha256: 'abc' does not match"),
    ("volume", ("source", "uri"), ..., "source: 'uri' is a required property"),
    ("volume", ("header", "te_s"), 0.03, r"header\.te_s: 0.03 is not of type 'array', 'null'"),
    ("volume", ("header", "te_s"), ["30 ms"], r"header\.te_s\.0: '30 ms' is not of type 'number'"),
    ("volume", ("header", "recon_matrix"), [1, 2], r"header\.recon_matrix: \[1, 2\] is too short"),
    ("volume", ("header", "recon_matrix"), [1, 2, 3.5], r"header\.recon_matrix\.2: 3.5 is not of type 'integer'"),
    ("element", ("type",), ..., "'type' is a required property"),
    ("element", ("commit",), "1", "commit: '1' does not match"),
    ("element", ("labels",), ..., "'labels' is a required property"),
    ("element", ("labels", "1", "name"), ..., r"labels\.1: 'name' is a required property"),
    ("element", ("labels", "0"), {"name": "background"}, "labels: '0' does not match"),
    ("element", ("labels", "one"), {"name": "x"}, "labels: 'one' does not match"),
    ("element", ("affine", 3), ..., "affine: .* is too short"),
    ("element", ("affine", 1, 1), "x", r"affine\.1\.1: 'x' is not of type 'number'"),
    ("element", ("provenance", "config"), [], r"provenance\.config: \[\] is not of type 'object'"),
    ("element", ("provenance", "config_hash"), "x", r"provenance\.config_hash: 'x' does not match"),
    ("element", ("provenance", "inputs"), [{"path": "recon/a"}], r"provenance\.inputs\.0: 'commit' is a required"),
    ("element", ("provenance", "seed"), "one", r"provenance\.seed: 'one' is not of type 'integer', 'null'"),
    ("element", ("type_version",), 0, "type_version: 0 is less than the minimum of 1"),
    ("split", ("unit",), "slice", "unit: 'subject' was expected"),
    ("split", ("train",), ["a b"], r"train\.0: 'a b' does not match"),
    ("split", ("train",), ["sub-1", "sub-1"], "train: .* has non-unique elements"),
    ("split", ("test",), ..., "'test' is a required property"),
    ("statistics", ("fields", "image/t1", "std"), -1, r"fields\.image/t1\.std: -1 is less than the minimum of 0"),
    ("statistics", ("fields", "image/t1", "n"), ..., r"fields\.image/t1: 'n' is a required property"),
    ("evaluation", ("task",), "other", r"task: 'other' is not one of \['recon', 'seg', 'joint'\]"),
    ("evaluation", ("rows", 0, "method"), ..., r"rows\.0: 'method' is a required property"),
    ("evaluation", ("metrics", "psnr", "better"), "more", r"metrics\.psnr\.better: 'more' is not one of"),
    ("index-row", ("elements", "kspace", "commit"), ..., r"elements\.kspace: 'commit' is a required property"),
    ("index-row", ("split", "default"), "training", r"split\.default: 'training' is not one of"),
]


@pytest.mark.parametrize(("schema", "place", "value", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_what_is_wrong_is_named(schema, place, value, message):
    content = valid(schema)
    validate(schema, content, "here")
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    with pytest.raises(
        SchemaError, match=rf"^here: the {schema} attributes do not follow the schema:\n(?s:.*){message}"
    ):
        validate(schema, content, "here")


@pytest.mark.parametrize(
    ("kind", "key", "value"), [("kspace", "norm", "backward"), ("kspace", "centred", False), ("qmap", "unit", 5)]
)
def test_attributes_that_a_type_demands(kind, key, value):
    content = valid("element", kind)
    validate("element", content, "here")
    for changed in ({**content, key: value}, {k: v for k, v in content.items() if k != key}):
        with pytest.raises(SchemaError, match=key):
            validate("element", changed, "here")


def test_all_that_is_wrong_is_named_at_once():
    content = {**valid("volume"), "volume_id": "x", "subject_id": "y"}
    with pytest.raises(SchemaError, match=r"subject_id: 'y' (?s:.*)volume_id: 'x'"):
        validate("volume", content, "here")


def test_unknown_keys_are_tolerated_everywhere():
    """At the top of every document, and in the mappings within it that have fixed keys."""
    within = {"volume": ("header", "source", "converter"), "element": ("provenance",)}
    tolerant = set()
    for schema, content in documents(GOLDEN):
        more = copy.deepcopy(content)
        for mapping in (more, *(more[key] for key in within.get(schema, ()))):
            mapping["of_a_later_minor_version"] = {"a": [1]}
        validate(schema, more, "here")
        tolerant.add(schema)
    assert tolerant == set(SCHEMAS)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), np.float32(1), object()])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(SchemaError, match="here: the cohort attributes are not JSON values"):
        validate("cohort", {**valid("cohort"), "more": value}, "here")


def test_models_and_schemas_name_the_same_keys():
    volume, element = load_schema("volume")["properties"], load_schema("element")["properties"]
    assert set(Header.model_fields) == set(volume["header"]["properties"])
    assert set(Source.model_fields) == set(volume["source"]["properties"]) == set(volume["source"]["required"])
    stored = Provenance(method="m", package="p", version="1").to_attributes()
    assert set(stored) == set(element["provenance"]["properties"])


def test_every_type_has_a_reader_and_a_line_in_the_documentation():
    text = DOCS.read_text()
    for name, kind in ELEMENT_TYPES.items():
        assert all((name, older) in STEPS for older in range(1, kind.version))
        (line,) = (line for line in text.splitlines() if line.startswith((f"| `{name}`", f"| `{name}/")))
        if kind.single:
            spec = kind.arrays["data"]
            for dims in spec.dims[:1]:
                assert ", ".join(dims[-2:]) in line
            assert all(dtype in line for dtype in spec.dtypes)
            assert {"raw": "bytes", "blosc": "blosc", "zstd": "zstd"}[spec.codec] in line


@pytest.mark.parametrize(
    ("path", "name"),
    [("kspace", "kspace"), ("recon/a", "recon"), ("emb/sam2.1-large/block-3", "emb"), ("seg/A_1.b-2", "seg")],
)
def test_paths_have_types(path, name):
    assert element_type(path).name == name


@given(
    st.sampled_from(sorted(name for name, kind in ELEMENT_TYPES.items() if kind.single)),
    st.lists(st.integers(1, 3000), min_size=1, max_size=5),
)
def test_shards_are_as_large_as_the_limit_allows(name, sizes):
    spec = ELEMENT_TYPES[name].arrays["data"]
    shape = tuple(sizes)
    if spec.inner is None or len(shape) not in {len(dims) for dims in spec.dims}:
        return
    itemsize = np.dtype(spec.dtypes[0]).itemsize
    shard, chunk = spec.shard_shape(shape, itemsize), spec.chunk_shape(shape)
    leading = len(shape) - spec.inner
    assert chunk == (1,) * leading + shape[leading:]
    assert shard[leading:] == shape[leading:]
    assert all(1 <= part <= whole for part, whole in zip(shard, shape, strict=True))
    size = math.prod(shard) * itemsize
    assert size <= SHARD_BYTES or shard == chunk
    partial = [axis for axis in range(leading) if shard[axis] < shape[axis]]
    if partial:  # one more would be too many, and what is before is not gathered
        assert size // shard[partial[-1]] * (shard[partial[-1]] + 1) > SHARD_BYTES
        assert shard[: partial[-1]] == (1,) * partial[-1]


def test_shards_of_a_real_scan():
    """36 slices of 15 coils of 640 x 368 samples, 28 MB each, go into two shards of at most 512 MiB."""
    kind = ELEMENT_TYPES["kspace"].arrays["data"]
    assert kind.shard_shape((36, 15, 640, 368), 8) == (18, 15, 640, 368)
    assert 18 * 15 * 640 * 368 * 8 <= 512 * 2**20 < 19 * 15 * 640 * 368 * 8
    with pytest.raises(ShapeError, match=r"x: dimensions: expected \(slice, coil, ky, kx\)"):
        kind.check((640, 368), np.dtype("complex64"), None, "x")
