"""The ``suggest`` command, and the way of new and corrected labels into a cache."""

from pathlib import Path

import pandas as pd

import featurecache as fc


def test_suggestions_are_labeled_and_read_back(run, tiny_clip, image_folder, extracted):
    table = pd.read_csv(image_folder / "xrays.csv", dtype=str, keep_default_na=False)
    truth = table.set_index("path")["Opacity"]
    is_train = table["split"] == "train"
    table.loc[is_train & (table.index % 3 > 0), ["Opacity", "Rare"]] = ""
    table.to_csv("partly.csv", index=False)
    columns = ("--patient-column", "patient", "--split-column", "split")
    labels = ("--label-column", "Opacity", "--label-column", "Rare")
    options = ("--model", tiny_clip, "--images-root", image_folder, *labels, *columns)
    of_table = ("extract", "--data-root", "partly.csv", *options)
    assert run(*of_table).code == 0
    outcome = run("suggest", "--n", 8, "--cache", "cache/partly", "--out", "next.csv")
    assert outcome.code == 0, outcome.stderr
    assert "images to label: next.csv" in outcome.stdout
    images = pd.read_csv("next.csv", dtype=str, keep_default_na=False)
    assert images["id"].tolist() == fc.suggest("cache/partly", 8)["id"].tolist()
    assert images["patient"].is_unique

    images["Opacity"] = truth[images["id"]].to_numpy()
    images.to_csv("next.csv", index=False)
    # As a data set of its own, and as more labels of the data set that it was chosen from.
    own = run("extract", "--data-root", "next.csv", *options, "--id-column", "id", "--json")
    assert own.code == 0, own.stderr
    assert own.json[0]["done"] == 0
    assert sum(own.json[0]["reused_by_content"].values()) == 8
    labeled = fc.open_cache("cache/next").to_pandas()
    assert labeled["Opacity"].tolist() == [float(truth[image]) for image in labeled["id"]]
    more = run(*of_table, "--corrections", "next.csv", "--json")
    assert more.code == 0, more.stderr
    assert (more.json[0]["done"], more.json[0]["reused"]) == (0, 60)
    assert more.json[0]["changed"]["label"] == 8
    again = run("suggest", "--n", 40, "--cache", "cache/partly", "--out", "rest.csv", "--json")
    assert not {image["id"] for image in again.json} & set(images["id"])


def test_doubtful_labels_are_corrected_and_given_back(
    run, tiny_clip, image_folder, extract_options, extracted
):
    table = pd.read_csv(image_folder / "xrays.csv", dtype=str, keep_default_na=False)
    wrong = table["path"][[7, 20]].tolist()
    table.loc[[7, 20], "Opacity"] = [str(1 - int(table["Opacity"][row])) for row in (7, 20)]
    table.to_csv("wrong.csv", index=False)
    options = ["wrong.csv" if str(o).endswith("xrays.csv") else o for o in extract_options]
    extract = ("extract", "--model", tiny_clip, *options, "--images-root", image_folder)
    assert run(*extract).code == 0
    outputs = ("--out", "doubtful.csv", "--label-sheet", "sheet.png")
    outcome = run("audit", "--cache", "cache/wrong", "--n-bootstrap", 20, *outputs)
    assert outcome.code == 0, outcome.stderr
    assert "doubtful labels: doubtful.csv" in outcome.stdout
    assert "contact sheet: sheet.png" in outcome.stdout
    assert "not looked at: Rare: no patient has a positive image" in outcome.stderr
    assert Path("sheet.png").stat().st_size > 1000
    doubtful = pd.read_csv("doubtful.csv", dtype=str, keep_default_na=False)
    assert set(doubtful["id"][:2]) == set(wrong)
    doubtful.loc[:1, "corrected"] = [str(1 - int(value)) for value in doubtful["value"][:2]]
    doubtful.to_csv("doubtful.csv", index=False)
    corrected = run(*extract, "--corrections", "doubtful.csv", "--json")
    assert corrected.code == 0, corrected.stderr
    assert "doubtful.csv corrects 2 labels of 2 images" in corrected.stderr
    assert (corrected.json[0]["done"], corrected.json[0]["changed"]["label"]) == (0, 2)
    right = fc.open_cache(extracted["path"]).labels.values
    assert (fc.open_cache("cache/wrong").labels.values == right).all()
    for option in outputs[::2]:
        taken = run("audit", option, outputs[outputs.index(option) + 1])
        assert taken.code == 2
        assert "already exists" in taken.stderr
