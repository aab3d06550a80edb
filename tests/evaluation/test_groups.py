"""Groups of images from a cache and from tables, and their use in an external validation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.external import validate_external
from featurecache.evaluation.groups import Attribute, group_rows, parse_attributes
from featurecache.evaluation.negatives import keep_negatives
from featurecache.metrics.thresholds import OperatingPoint, choose_thresholds
from featurecache.provenance.provenance import Provenance
from featurecache.report.operating_tables import operating_table
from featurecache.store.records import to_utf8
from tests.evaluation.toy_caches import write_toy_cache

N = 480
NAMES = ("Mass", "Nodule")
CARRIED = "sensitivity=0.8 on validation of the training run"


@pytest.fixture
def probability():
    return np.random.default_rng(1).random((N, 2))


@pytest.fixture
def cache(tmp_path, probability):
    rng = np.random.default_rng(2)
    labels = (rng.random((N, 2)) < 0.2 + 0.6 * probability).astype(np.int8)
    cache = write_toy_cache(tmp_path / "other.h5", rng.normal(size=(N, 4)), labels, names=NAMES)
    images = replace(
        cache.images,
        sex=to_utf8(np.tile(["F", "M", "M", ""], N // 4)),
        age=to_utf8([str(row % 90) for row in range(N)]),
    )
    return replace(cache, images=images)


def evaluate(cache, probability, **options):
    return validate_external(
        cache,
        lambda embedding: probability[: len(embedding)],
        name="runs/trained",
        labels=NAMES,
        thresholds=(0.3, 0.6),
        **{"n_bootstrap": 0, "provenance": Provenance(), **options},
    )


@pytest.mark.parametrize(
    ("text", "values", "groups"),
    [
        ("sex", ["F", "", "M"], ["F", "", "M"]),
        (
            "age:0-18-40-65-",
            ["0", "17.9", "18", "64", "65", "120", "", "adult", "-1"],
            [
                *("0 to under 18", "0 to under 18", "18 to under 40", "40 to under 65"),
                *("65 and over", "65 and over", "", "", ""),
            ],
        ),
        ("dose:-0.5-1", ["0.4", "0.5", "1"], ["under 0.5", "0.5 to under 1", ""]),
    ],
)
def test_values_are_grouped(text, values, groups):
    assert Attribute.parse(text).group(np.array(values)).tolist() == groups


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("age", "age needs bins: give them as in age:0-18-40-65-"),
        ("sex,,view", "empty name"),
        ("age:40-18", "ascending edges"),
        ("age:0--18", "ascending edges"),
        ("age:18", "ascending edges"),
        ("age:-", "ascending edges"),
        ("age:young-old", "ascending edges"),
        ("sex,sex", "twice"),
    ],
)
def test_attributes_that_mean_nothing_are_refused(by, message):
    with pytest.raises(UsageError, match=message):
        parse_attributes(by)


def test_groups_come_from_the_cache_and_from_tables(cache, tmp_path):
    rows = cache.rows("test")
    table = pd.DataFrame({"id": cache.ids[rows[:40]], "scanner": ["a", "b"] * 20})
    table.to_csv(tmp_path / "scanners.csv", index=False)
    for source in (table, tmp_path / "scanners.csv"):
        groups, notes = group_rows(cache, rows, ["sex", "view", "scanner"], source)
        assert notes == []
        assert list(groups) == ["sex", "view", "scanner"]
        assert groups["sex"].tolist() == np.tile(["F", "M", "M", ""], len(rows) // 4).tolist()
        assert set(groups["view"]) == {"PA"}
        assert groups["scanner"].tolist() == ["a", "b"] * 20 + [""] * (len(rows) - 40)


def test_groups_that_cannot_be_made_are_refused(cache):
    rows = cache.rows("test")
    table = pd.DataFrame({"id": cache.ids[rows], "site": np.arange(len(rows)), "note": ""})
    for by, source, message in (
        ("scanner", None, "`by` 'scanner' is neither sex, age nor view: give a table"),
        ("site", table, "site has 120 different numbers, .* as in site:0-18-40-65-"),
        ("site", table.assign(site=np.tile([0.5, 1], 60)), "site has 2 different numbers"),
        ("site", table.assign(site=table["id"]), "120 values, and at most 20 can be groups"),
        ("note", table, "note is unknown for all scored images"),
        ("site", table.assign(id="x"), "the id 'x' twice"),
        ("site", table.assign(id=table["id"] + "x"), "none of the 120 scored ids"),
        ("site", table.drop(columns="id"), "has no column id"),
    ):
        with pytest.raises(UsageError, match=message):
            group_rows(cache, rows, by, source)


def test_cells_without_a_value_are_in_no_group_and_a_table_replaces_the_cache(cache):
    rows = cache.rows("test")[:8]
    sexes = ["F", " M ", "NaN", "None", "n/a", "", "Unknown", None]
    table = pd.DataFrame({"id": cache.ids[rows], "sex": sexes, "site": np.resize([1, 2], 8)})
    groups, notes = group_rows(cache, rows, "sex,site", table)
    assert groups["sex"].tolist() == ["F", "M", "", "", "", "", "", ""]
    assert set(groups["site"]) == {"1", "2"}  # a few whole numbers are codes
    assert notes == ["sex of images are those of `groups`, not of the cache"]


def test_groups_without_by_and_an_empty_by_are_refused(cache, probability):
    with pytest.raises(UsageError, match="name the columns of `groups`"):
        evaluate(cache, probability, groups=pd.DataFrame({"id": cache.ids, "sex": "F"}))
    with pytest.raises(UsageError, match="empty name"):
        evaluate(cache, probability, by="")


def test_subgroups_are_measured_at_the_thresholds_of_the_training(cache, probability):
    run = evaluate(cache, probability, by="sex,age:0-45-", n_bootstrap=20)
    assert run.config["by"] == ["sex,age:0-45-"]
    sex = run.metrics.subgroups["sex"]
    assert (sex.n_images, sex.n_unknown) == ({"F": 30, "M": 60}, 30)
    rows = cache.rows("test")
    women = rows[cache.images.sex[rows] == b"F"]
    truth, p = cache.labels.values[women, 0], probability[women, 0]
    scores = sex.per_label["Mass"].groups["F"]
    assert scores.tpr.value == pytest.approx((p[truth == 1] >= 0.3).mean())
    assert scores.fpr.value == pytest.approx((p[truth == 0] >= 0.3).mean())
    assert list(run.metrics.subgroups["age"].n_images) == ["0 to under 45", "45 and over"]
    assert type(run.metrics).model_validate(run.metrics.to_json()) == run.metrics


def test_retuned_thresholds_are_chosen_on_validation_of_the_other_data_set(cache, probability):
    point = OperatingPoint.parse("sensitivity=0.8")
    metrics = evaluate(cache, probability, operating_point=point, n_bootstrap=20).metrics
    val, test = cache.rows("val"), cache.rows("test")
    chosen = choose_thresholds(cache.labels.values[val], probability[val], point).values
    for c, (name, threshold) in enumerate(zip(NAMES, chosen, strict=True)):
        retuned, truth = metrics.retuned.per_label[name], cache.labels.values[test, c]
        decided = probability[test, c] >= threshold
        assert retuned.threshold == threshold != metrics.per_label[name].threshold
        assert retuned.recall == pytest.approx(decided[truth == 1].mean())
        assert retuned.specificity == pytest.approx((~decided[truth == 0]).mean())
        assert retuned.ci95.recall[0] < retuned.recall < retuned.ci95.recall[1]
        assert metrics.per_label[name].threshold_source == CARRIED
    assert metrics.retuned.operating_point == "sensitivity=0.8"


def test_a_target_that_is_missed_is_a_warning(cache, probability):
    """Sensitivities are 0.9 and 0.6 at the thresholds; 0.8 is above the interval of one."""
    point = OperatingPoint.parse("sensitivity=0.8")
    metrics = evaluate(cache, probability, operating_point=point, n_bootstrap=100).metrics
    (warning,) = [text for text in metrics.warnings if "were chosen for a sensitivity" in text]
    nodule = metrics.per_label["Nodule"]
    low, high = nodule.interval("recall")
    assert high < 0.8 < metrics.per_label["Mass"].recall
    reached = f"{nodule.recall:.3f} [{low:.3f}, {high:.3f}]"
    assert warning.endswith(f"it is lower: Nodule {reached}")
    table = operating_table("run", metrics)
    assert table.caption.startswith(f"run at its operating point ({CARRIED}), ")
    (row,) = [row for row in table.rows if row[0] == "Nodule"]
    assert dict(zip(table.columns, row, strict=True))["sensitivity"] == reached


def test_without_validation_images_the_reason_is_given(cache, probability):
    every = evaluate(cache, probability, split="all").metrics.retuned
    assert every.per_label == {}
    assert "all images are scored" in every.reason
    unlabeled = replace(cache.labels, cells=cache.labels.cells.copy())
    unlabeled.cells[cache.rows("val"), 1] = 0
    (seen,) = cache.records(cache.rows("val")[:1])
    trained_on = Provenance(trained_on={seen.collection: seen})
    own = evaluate(cache, probability, provenance=trained_on).metrics
    assert own.retuned.per_label == {}
    assert "chosen, on these validation images" in own.retuned.reason
    n_val = len(cache.rows("val"))
    (warning,) = [text for text in own.warnings if "not external validation" in text]
    assert f"on 1 of the {n_val} validation images of " in warning
    other = evaluate(replace(cache, labels=unlabeled), probability).metrics.retuned
    assert other.per_label["Nodule"].reason == "no validation image is positive"
    assert other.per_label["Mass"].reason is None


def test_negatives_are_all_healthy_or_diseased():
    #                  healthy, ill, otherwise ill, maybe otherwise ill, stated as normal
    labels = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 1]], dtype=np.int8)
    names = ("Mass", "Nodule", "No Finding")

    def kept(negatives: str) -> list[int]:
        truth = keep_negatives(labels[:, :1], negatives, of_data_set=labels, label_names=names)
        return truth[:, 0].tolist()

    assert kept("all") == [0, 1, 0, 0, 0]
    assert kept("healthy") == [0, 1, -1, -1, 0]
    assert kept("diseased") == [-1, 1, 0, -1, -1]


def test_scores_against_some_negatives(cache, probability):
    diseased = evaluate(cache, probability, negatives="diseased")
    assert (diseased.metrics.negatives, diseased.config["negatives"]) == ("diseased", "diseased")
    rows = cache.rows("test")
    labels = cache.labels.values[rows]
    scores = diseased.metrics.per_label["Mass"]
    negative = (labels[:, 0] == 0) & (labels[:, 1] == 1)
    assert scores.n_known - scores.n_positive == negative.sum()
    expected = (probability[rows, 0][negative] < 0.3).mean()
    assert scores.specificity == pytest.approx(expected)
    assert scores.recall == evaluate(cache, probability).metrics.per_label["Mass"].recall
    assert diseased.metrics.exact_match is diseased.metrics.at_half.hamming_loss is None
    assert diseased.metrics.controls["always_negative"] is None
    assert not [text for text in diseased.warnings if "calling every image normal" in text]
    with pytest.raises(UnknownNameError, match="did you mean healthy"):
        evaluate(cache, probability, negatives="helthy")
