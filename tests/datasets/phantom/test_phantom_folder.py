import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.datasets.boxes import BOX_COLUMNS
from featurecache.datasets.load import find_root, load_dataset
from featurecache.datasets.nih import LABELS
from featurecache.datasets.phantom import folder as phantom
from featurecache.datasets.phantom.cohort import cohort
from featurecache.datasets.phantom.folder import (
    Recipe,
    generate_phantom,
    load_phantom,
    phantom_root,
)
from featurecache.datasets.phantom.radiograph import draw_radiograph
from featurecache.errors import DatasetError, FeaturecacheWarning, UnknownNameError, UsageError

N = 40


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantom"
    generate_phantom(root, n_images=N, seed=7, size=48)
    return root


@pytest.fixture
def phantom_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder, with images that cost nothing to generate."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    blank = np.zeros((8, 8), dtype=np.uint8)
    monkeypatch.setattr(
        phantom, "draw_with_boxes", lambda *_, **__: (blank, [("Mass", 1, 2, 3, 4)])
    )
    return tmp_path / "xdg" / "featurecache"


def test_phantom_is_read_by_the_nih_loader(generated: Path) -> None:
    dataset = load_dataset("nih", generated, split="official")
    assert len(dataset) == N
    assert dataset.label_names == LABELS
    images = {image.name: image for image in cohort(N, seed=7)}
    for row, labels in zip(dataset.images.itertuples(), dataset.label_values, strict=True):
        image = images[row.id]
        assert {LABELS[c] for c in np.flatnonzero(labels)} == set(image.findings)
        assert (row.patient, row.view) == (str(image.number), image.view)
        expected = draw_radiograph(
            image.patient, image.findings, view=image.view, seed=image.seed, size=48
        )
        with Image.open(generated / row.path) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), expected)


def test_boxes_are_of_labels_that_the_image_has(generated: Path) -> None:
    dataset = load_phantom(generated)
    assert dataset.boxes.columns.tolist() == list(BOX_COLUMNS)
    assert (dataset.boxes[["image_width", "image_height"]] == 48).all(axis=None)
    positive = {
        (image, label)
        for image, values in dataset.labels.iterrows()
        for label in values.index[values == 1]
    }
    boxed = set(zip(dataset.boxes["id"], dataset.boxes["label"], strict=True))
    assert boxed == {(image, label) for image, label in positive if label != "Emphysema"}


def test_only_lateral_images_of_two_views_show_an_effusion(tmp_path: Path) -> None:
    generate_phantom(tmp_path / "two", n_images=40, n_views=2, seed=7, size=32)
    dataset = load_phantom(tmp_path / "two", n_views=2)
    assert dataset.images["study"].value_counts().tolist() == [2] * 20
    assert dataset.images.groupby("study")["view"].agg(set).map(lambda v: "LATERAL" in v).all()
    of_study = dataset.label_values[:, LABELS.index("Effusion")]
    assert 0 < of_study.sum() < 40
    assert (of_study[0::2] == of_study[1::2]).all()
    for image in cohort(20, seed=7):
        without = {name: s for name, s in image.findings.items() if name != "Effusion"}
        files = tmp_path / "two" / "images"
        for name, view, shown in (
            (f"{image.study}.png", image.view, without),
            (f"{image.study}_lateral.png", "LATERAL", image.findings),
        ):
            drawn = draw_radiograph(image.patient, shown, view=view, seed=image.seed, size=32)
            with Image.open(files / name) as stored:
                assert np.array_equal(np.asarray(stored), drawn)
        healthy, ill = (
            draw_radiograph(image.patient, findings, view="LATERAL", seed=image.seed, size=32)
            for findings in ({"Mass": 1.0}, {"Effusion": 0.35})
        )
        assert (ill.astype(int) - healthy).max() > 20
    with pytest.raises(UsageError, match="an even number of images"):
        generate_phantom(tmp_path / "odd", n_images=41, n_views=2)
    with pytest.raises(DatasetError, match="the number of views of the phantom"):
        load_phantom(tmp_path / "two", n_views=1)


def test_phantoms_of_different_seeds_are_different_collections(
    generated: Path, tmp_path: Path
) -> None:
    generate_phantom(tmp_path / "other", n_images=N, seed=8, size=48)
    one, other = load_dataset("phantom", generated), load_dataset("phantom", tmp_path / "other")
    assert set(one.images["id"]) & set(other.images["id"])
    assert one.collection != other.collection


def test_no_patient_is_in_two_splits(generated: Path) -> None:
    images = load_phantom(generated).images
    assert set(images["split"]) == {"train", "val", "test"}
    assert (images.groupby("patient")["split"].nunique() == 1).all()
    assert images["patient"].nunique() < N


def test_metadata_has_a_cell_for_each_column(generated: Path) -> None:
    with (generated / "Data_Entry_2017_v2020.csv").open() as file:
        header, *rows = csv.reader(file)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][-4:-2] == ["48", "48"]


def test_images_are_marked_as_synthetic(generated: Path) -> None:
    dataset = load_phantom(generated)
    assert dataset.name == "phantom"
    assert "SYNTHETIC" in dataset.notes[0]
    readme = (generated / "README.txt").read_text()
    assert "synthetic" in readme
    assert "generator version 2 from seed 7" in readme


def test_generation_is_reproducible(generated: Path, tmp_path: Path) -> None:
    generate_phantom(tmp_path / "again", n_images=N, seed=7, size=48)
    for path in generated.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(generated)).read_bytes()


def test_other_phantom_than_required_is_refused(generated: Path) -> None:
    assert len(load_phantom(generated, n_images=N, seed=7)) == N
    with pytest.raises(DatasetError, match=r"number of images of the phantom .* is 40, not 50"):
        load_phantom(generated, n_images=50)
    with pytest.raises(DatasetError, match=r"seed of the phantom .* is 7, not 0"):
        load_phantom(generated, seed=0)
    with pytest.raises(UnknownNameError, match="did you mean official"):
        load_phantom(generated, split="offical")


def test_failed_generation_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_phantom(tmp_path / "phantom", n_images=20, size=32, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_every_image(phantom_cache: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate_phantom(tmp_path / "phantom", n_images=20, progress=lambda *n: seen.append(n))
    assert seen == [(n, 20) for n in range(1, 21)]


def test_concurrent_generation_keeps_the_first(phantom_cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "phantom"

    def other_process(done: int, total: int) -> None:
        if done == total:
            generate_phantom(root, n_images=20, seed=1)
            (root / "first").touch()

    generate_phantom(root, n_images=20, seed=1, progress=other_process)
    assert (root / "first").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]


@pytest.mark.parametrize("images", [-1, 0, 19, 100_001])
def test_number_of_images_out_of_bounds_is_refused(tmp_path: Path, images: int) -> None:
    with pytest.raises(UsageError, match=f"`n_images` is {images}: .* from 20 to 100000"):
        find_root("phantom", tmp_path / "new", n_images=images)
    assert list(tmp_path.iterdir()) == []


def test_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the seed is -1"):
        find_root("phantom", tmp_path / "new", seed=-1)


def test_default_folder_is_generated_once_in_the_user_cache(
    phantom_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = find_root("phantom", None, n_images=20, seed=3)
    assert root == phantom_cache / "phantom-v2-20-224-seed3"
    monkeypatch.setattr(phantom, "draw_with_boxes", pytest.fail)
    assert find_root("phantom", None, n_images=20, seed=3) == root
    assert len(load_dataset("phantom", root, n_images=20, seed=3)) == 20


def test_temporary_folder_replaces_a_user_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with pytest.warns(FeaturecacheWarning, match=r"no cache folder .*: the data set phantom"):
        root = find_root("phantom", None, n_images=20)
    assert root.is_relative_to(tmp_path / "tmp")
    with warnings.catch_warnings():  # reported once
        warnings.simplefilter("error")
        assert find_root("phantom", None, n_images=20) == root


def test_folder_names_differ_between_recipes() -> None:
    recipes = [Recipe(), Recipe(images=50), Recipe(seed=1), Recipe(size=64), Recipe(generator=3)]
    assert len({recipe.folder_name for recipe in recipes}) == len(recipes)


def test_given_folder_is_read_or_created(phantom_cache: Path, tmp_path: Path) -> None:
    new = tmp_path / "deep" / "phantom"
    assert find_root("phantom", new, n_images=20) == new
    assert find_root("phantom", new) == new
    assert find_root("phantom", new.parent) == new


def test_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DatasetError, match="contains no phantom: choose a folder that"):
        find_root("phantom", tmp_path)
    with pytest.raises(DatasetError, match=r"contains no phantom, phantom\.json is missing"):
        load_phantom(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_unwritable_folder_is_refused(phantom_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot be written to .*choose a folder"):
        generate_phantom(tmp_path / "file" / "phantom", n_images=20)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        (json.dumps({"pictures": 3}), "unexpected keyword argument 'pictures'"),
        (json.dumps({"images": 3}), "`n_images` is 3: the data set phantom can have from"),
    ],
)
def test_broken_recipe_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "phantom.json").write_text(text)
    with pytest.raises(DatasetError, match=rf"phantom\.json cannot be read \(.*{reason}.*: remove"):
        load_phantom(tmp_path)


def test_unknown_option_is_refused_before_generation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="phantom takes no option `subset`"):
        find_root("phantom", tmp_path / "new", subset="viral")
    assert list(tmp_path.iterdir()) == []


def test_default_phantom_has_600_images_of_seed_0(
    phantom_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom, "generate_phantom", lambda *_, **__: None)
    monkeypatch.setattr(phantom, "N_IMAGES", Recipe.images)  # fewer in other tests
    assert phantom_root(None, {}) == phantom_cache / "phantom-v2-600-224-seed0"
