"""Cells however they are written, through the command line: values, notes and refusals."""

import re

import pytest

from tests.inputs.tables import IMAGES, Load


def column(name: str, *cells: str) -> str:
    """Return a table with one column beside the paths."""
    rows = zip(IMAGES, cells, strict=False)
    quoted = ((image, f'"{cell}"' if "\n" in cell else cell) for image, cell in rows)
    return f"path\t{name}\n" + "".join(f"{image}\t{cell}\n" for image, cell in quoted)


LABELS = {
    "numbers": (("1", "0", "-1", ""), "", [1, 0, None, None], None),
    "floats": (("1.0", "0.00", "-1,0", ""), "", [1, 0, None, None], "'1.0' (1) read as positive"),
    "booleans": (("True", "false", "TRUE", "NA"), "", [1, 0, 1, None], "'NA' (1) read as blank"),
    "excel-errors": (("1", "0", "#N/A", "#REF!"), "", [1, 0, None, None], "'#REF!' (1) read as b"),
    "yes-no": (("Yes", "no", "y", "N"), "", [1, 0, 1, 0], "'no' (1), 'N' (1) read as negative"),
    "german": (("ja", "Nein", "", "k.A."), "", [1, 0, None, None], "'ja' (1) read as positive"),
    "words": (("positive", "negative", "uncertain", "None"), "", [1, 0, None, None], "uncertain"),
    "own": (
        ("x", "", "o", "?"),
        "--positive x --negative o --negative _",
        [1, 0, 0, None],
        "'x' (1) read as positive",
    ),
    "only-positive": (
        ("1", "", "", ""),
        "",
        [1, None, None, None],
        "No image is negative for L: other cells are blank.",
    ),
}


@pytest.mark.parametrize("case", LABELS)
def test_cells_of_a_label(load: Load, case: str) -> None:
    cells, options, values, note = LABELS[case]
    loaded = load(column("L", *cells), f"--label-column L {options}")
    assert loaded.labels == {"L": values}
    assert (note or "") in loaded.notes
    assert note or "Label cells" not in loaded.notes


JOINED = {
    "bars": (("Mass|Edema", "No Finding", "Mass", ""), [1, 0, 0, 0], [1, 0, 1, 0], "joined by '|'"),
    "semicolons": (("Mass; Edema;", "nan", "mass", "None"), [1, 0, 0, 0], [1, 0, 1, 0], "by ';'"),
    "commas": (
        ("Mass, Edema", "Edema", "o. B.", "Mass"),
        [1, 1, 0, 0],
        [1, 0, 0, 1],
        "in the column 'found', joined by ',': 'Edema' (2), 'Mass' (2); without a finding (1).",
    ),
    "lists": (
        ("['Mass', 'Edema']", '["Edema"]', "[]", "['Mass' 'nan']"),
        [1, 1, 0, 0],
        [1, 0, 0, 1],
        "written as lists",
    ),
    "sets": (
        ("{'Mass', 'Edema'}", "{'Edema'}", "set()", "{Mass}"),
        [1, 1, 0, 0],
        [1, 0, 0, 1],
        "written as lists",
    ),
    "tuples": (
        ("('Mass', 'Edema')", '("Edema",)', "()", "['Mass']"),
        [1, 1, 0, 0],
        [1, 0, 0, 1],
        "written as lists",
    ),
    "no-finding-words": (
        ("Mass|Edema", "NOFINDING", "Mass", "No_Finding."),
        [1, 0, 0, 0],
        [1, 0, 1, 0],
        "Read as no finding: 'NOFINDING' (1), 'No_Finding.' (1).",
    ),
    "healthy": (
        ("Mass|Edema", "Healthy", "Mass", "normal."),
        [1, 0, 0, 0],
        [1, 0, 1, 0],
        "in the same cell of the column 'found': 'Healthy' (1), 'normal.' (1).",
    ),
    **{
        f"joined-by-{sign}": (
            (f"Mass{sign}Edema", "Edema", "", "Mass"),
            [1, 1, 0, 0],
            [1, 0, 0, 1],
            f"joined by '{sign}'",
        )
        for sign in "/+&"
    },
    "lines": (("Mass\nEdema", "Edema", "", "Mass"), [1, 1, 0, 0], [1, 0, 0, 1], r"joined by '\n'"),
    "lists-without-quotes": (
        ("[Mass, Edema]", "[ Edema ]", "['Mass', nan]", "[]"),
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        "written as lists",
    ),
    "case": (
        ("Mass|Edema", "MASS", "Mass", "EDEMA|Edema"),
        [1, 0, 0, 1],
        [1, 1, 1, 0],
        "Labels that differ only in case are one: ",
    ),
    "normal": (
        ("Mass|Edema", "Normal", "Mass", "normal"),
        [1, 0, 0, 0],
        [1, 0, 1, 0],
        "column 'found': 'Normal' (1), 'normal' (1). For labels of their own, give the column as ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JOINED)
def test_joined_labels(load: Load, case: str) -> None:
    cells, edema, mass, note = JOINED[case]
    loaded = load(column("found", *cells), "--multilabel-column found")
    assert loaded.labels == {"Edema": edema, "Mass": mass}
    assert note in loaded.notes


def test_normal_beside_other_labels_is_a_label(load: Load) -> None:
    cells = ("normal|scar", "normal", "scar", "normal")
    loaded = load(column("found", *cells), "--multilabel-column found")
    assert loaded.labels == {"normal": [1, 1, 0, 1], "scar": [1, 0, 1, 0]}


@pytest.mark.parametrize("cells", [("normal", "Healthy", "", ""), ("(left) a", "(b)", "(left) a")])
def test_words_without_any_other_label_and_names_in_parentheses_are_labels(load, cells) -> None:
    loaded = load(column("found", *cells), "--multilabel-column found")
    assert set(loaded.labels) == set(cells) - {""}


def test_names_with_commas_are_kept_where_bars_join(load: Load) -> None:
    cells = ("Opacity, left|Mass", "Mass", "Opacity, left", "")
    loaded = load(column("found", *cells), "--multilabel-column found")
    assert loaded.labels == {"Mass": [1, 1, 0, 0], "Opacity, left": [1, 0, 1, 0]}


def test_signs_within_names_that_do_not_stand_alone_are_kept(load: Load) -> None:
    cells = ("Mass/Nodule", "Mass", "A+B", "")
    loaded = load(column("found", *cells), "--multilabel-column found")
    assert set(loaded.labels) == {"Mass/Nodule", "Mass", "A+B"}


def test_given_separator_joins_labels(load: Load) -> None:
    cells = ("Mass/Edema", "Edema", "", "")
    loaded = load(column("found", *cells), "--multilabel-column found --label-separator /")
    assert loaded.labels == {"Edema": [1, 1, 0, 0], "Mass": [1, 0, 0, 0]}


CLASSES = {
    "words": (
        ("TB", "normal", "tb", "Covid"),
        {"Covid": [0, 0, 0, 1], "normal": [0, 1, 0, 0], "TB": [1, 0, 1, 0]},
        "Classes in the column 'kind': 'TB' (2), 'Covid' (1), 'normal' (1).",
    ),
    "numbers": (
        ("2", "0", "10", "nan"),
        {
            "kind 0": [0, 1, 0, None],
            "kind 2": [1, 0, 0, None],
            "kind 10": [0, 0, 1, None],
        },
        "1 images have no class",
    ),
}


@pytest.mark.parametrize("case", CLASSES)
def test_classes_become_labels(load: Load, case: str) -> None:
    cells, labels, note = CLASSES[case]
    loaded = load(column("kind", *cells), "--class-column kind")
    assert loaded.labels == labels
    assert list(loaded.labels) == list(labels)
    assert note in loaded.notes


ATTRIBUTES = {
    "age": (("058Y", "58,5", "90+", "18M"), ["58", "58.5", "90", "1.5"], "'90+' (1) read as the l"),
    "age-words": (
        ("85 or more", "Unknown", "6W", "58.0"),
        ["85", "", "0.11", "58"],
        "'Unknown' (1) read as unknown",
    ),
    "age-impossible": (("414", "40", "abc", ""), ["", "40", "", ""], "'414' (1), 'abc' (1) read"),
    "sex": (("Male", "F ", "m", "nan"), ["M", "F", "M", ""], "'Male' (1), 'm' (1) read as M"),
    "sex-german": (("w", "männlich", "divers", "?"), ["F", "M", "O", ""], "'w' (1) read as F"),
    "view": (("PA", "pa", "nan", "Postero-anterior"), ["PA", "PA", "", "PA"], "read as PA"),
    "view-other": (("AP", "lateral", "L", "ap supine"), ["AP", "LATERAL", "LATERAL", "AP SUPINE"],
                   "'lateral' (1), 'L' (1) read as LATERAL"),
}  # fmt: skip


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_ages_sexes_and_views_have_one_spelling(load: Load, case: str) -> None:
    cells, values, note = ATTRIBUTES[case]
    name = case.partition("-")[0]
    loaded = load(column("c", *cells), f"--{name}-column c")
    assert loaded.dataset.images[name].tolist() == values
    assert note in loaded.notes


def test_long_cells_are_read_in_linear_time_and_cut_in_notes(load: Load) -> None:
    cells = ("5" + " " * 20_000 + "x", "40", "y" * 20_000, "")
    loaded = load(column("c", *cells), "--age-column c")
    assert loaded.dataset.images["age"].tolist() == ["", "40", "", ""]
    assert len(loaded.notes) < 2000


def test_plain_cells_need_no_note(load: Load) -> None:
    table = "path,s,v,a,L\na.png,F,PA,40,1\nb.png,M,AP,,0\n"
    loaded = load(table, "--sex-column s --view-column v --age-column a --label-column L")
    assert " read as " not in loaded.notes


def test_each_blank_patient_is_its_own(load: Load) -> None:
    loaded = load(column("who", "p1", "nan", "", "p1"), "--patient-column who")
    patients = loaded.dataset.images["patient"].tolist()
    assert patients[0] == patients[3] == "p1"
    assert len(set(patients)) == 3
    assert "2 images have no patient, and each counts as a patient of its own." in loaded.notes
    loaded = load(column("who", "nan", "nan", "", "None"), "--patient-column who")
    assert not loaded.dataset.patients_known
    assert "Patients are unknown" in loaded.notes


def test_split_names_are_translated(load: Load) -> None:
    loaded = load(column("fold", "Train", "dev", "testing", "training"), "--split-column fold")
    assert loaded.dataset.images["split"].tolist() == ["train", "val", "test", "train"]


REFUSED = {
    "unknown-word": (
        column("L", "1", "maybe"),
        "--label-column L",
        "line 3: 'maybe' in the column 'L' is not a valid label value. Use 1, 0, -1 or empty; "
        "give the words that mean yes and no as --positive and --negative; for one label per "
        "class, the column 'L' as --class-column; for names of findings, as --multilabel-column",
    ),
    "class-numbers": (
        column("L", "0", "1", "2"),
        "--label-column L",
        "line 4: '2' in the column 'L' is not a valid label value. Use 1, 0, -1 or empty; for one "
        "label per class, give the column 'L' as --class-column",
    ),
    "word-of-both": (
        column("L", "x"),
        "--label-column L --positive x --negative X",
        "the word 'X' is both in --positive and in --negative",
    ),
    "commas-in-names": (
        column("f", "Opacity, left", "Mass, left", "Mass", "nan"),
        "--multilabel-column f",
        "can be read in two ways: '|' gives 3 labels, 'Opacity, left' (1), 'Mass, left' (1), "
        "'Mass' (1); ',' gives 3 labels, 'left' (2), 'Mass' (2), 'Opacity' (1). Give the "
        "--label-separator, or the column as --class-column if each cell is one label",
    ),
    "two-separators": (
        column("f", "Mass|Edema", "Mass, Edema", "Mass", "nan"),
        "--multilabel-column f",
        "can be read in two ways",
    ),
    "separators-within-a-cell": (
        column("f", "Mass;Edema|Nodule", "Mass"),
        "--multilabel-column f",
        "can be read in two ways: '|' gives 3 labels, 'Mass;Edema' (1), 'Nodule' (1), 'Mass' (1); "
        "';' gives 2 labels, 'Mass' (2), 'Edema|Nodule' (1). Give the --label-separator",
    ),
    "finding-and-none": (
        column("f", "Mass|No finding"),
        "--multilabel-column f",
        "line 2: 'No Finding' together with a finding",
    ),
    "no-labels": (column("f", "", "nan", "None"), "--multilabel-column f", "has no labels"),
    "one-class": (column("f", "x", "X", ""), "--class-column f", "has 1 classes: it needs at l"),
    "no-age": (
        column("a", "1958-02-01", "1960"),
        "--age-column a",
        "no cell of the column 'a' is a valid age: it has '1958-02-01' (1), '1960' (1).",
    ),
    "no-sex": (
        column("s", "1", "2"),
        "--sex-column s",
        "no cell of the column 's' is a valid sex: it has '1' (1), '2' (1). Use M, F or O",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_cell_is_refused_with_what_to_do(load: Load, case: str) -> None:
    table, options, message = REFUSED[case]
    with pytest.raises(AssertionError, match=re.escape(message)):
        load(table, options)


def test_too_many_labels_are_free_text(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurecache.datasets.label_strings.MAX_LABELS", 2)
    for option in ("--multilabel-column", "--class-column"):
        with pytest.raises(AssertionError, match=r"has 3 different .*, more than 2"):
            load(column("f", "x", "y", "z"), f"{option} f")
