"""The reference is complete: public names, commands, metrics, registries."""

import re
import sys

import pytest

import featurecache as fc


@pytest.fixture(autouse=True)
def extensions(docs, monkeypatch):
    monkeypatch.syspath_prepend(str(docs / "_ext"))
    yield
    for name in ("api_summary", "command_reference", "metrics_schema", "registry_tables"):
        sys.modules.pop(name, None)


def test_api_page_documents_every_public_name(docs):
    page = (docs / "reference" / "api.md").read_text()
    documented = re.findall(r"auto(?:function|class|exception):: featurecache\.(\w+)", page)
    assert sorted(documented) == sorted(fc.__all__)


def test_every_public_name_has_a_summary_of_one_line():
    from api_summary import summaries

    assert [name for name, summary in summaries() if not summary.endswith(".")] == []


def test_command_reference_lists_every_option_with_help():
    from command_reference import commands, options

    names = [name for name, _ in commands()]
    assert "featurecache extract" in names
    assert "featurecache cache merge" in names
    for name, command in commands():
        declared = dict(options(name, command))
        assert any(declaration.startswith("--json") for declaration in declared), name
        assert [declaration for declaration, text in declared.items() if not text] == [], name


def test_metrics_schema_describes_every_model():
    from metrics_schema import field_descriptions, metrics_schema, models, type_name

    schema = metrics_schema()
    assert {"macro", "micro", "per_label", "ci95", "controls"} <= set(schema["properties"])
    for name, model in models(schema):
        assert model.get("description"), name
    assert field_descriptions("LabelScores")["confusion"].startswith("[[tn, fp], [fn, tp]]")
    assert field_descriptions("LabelScores")["auroc"]  # from a base class
    assert type_name(schema["properties"]["per_label"]) == "object of LabelScores by name"
    assert type_name({"anyOf": [{"type": "number"}, {"type": "null"}]}) == "number or null"


def test_format_page_has_every_key_of_the_metrics(docs):
    from featurecache.metrics.metrics import Metrics

    page = (docs / "reference" / "format.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("### `metrics.json`")[2], re.MULTILINE)
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(Metrics.model_fields)


def test_registry_tables_have_a_row_per_name():
    from registry_tables import TABLES

    from featurecache.heads.registry import HEADS

    for name, make_table in TABLES.items():
        columns, rows = make_table()
        for row in rows:
            assert len(row) == len(columns), name
    columns, rows = TABLES["heads"]()
    assert [row[0] for row in rows] == list(HEADS)


def test_terms_of_use_have_a_row_per_data_set_that_agrees_with_the_registry(docs):
    from featurecache.datasets.registry import DATASETS

    section = (docs / "reference" / "data_sets.md").read_text().split("## Terms of use")[1]
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w ]+) \| .+ \| ([\w ]+) \|$", section, re.MULTILINE)
    may_share = {True: "yes", False: "no", None: "not stated"}
    assert rows == [
        (spec.name, may_share[spec.may_share], spec.terms_read)
        for spec in DATASETS.values()
        if spec.terms_url
    ]
