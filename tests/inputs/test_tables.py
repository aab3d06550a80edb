"""Tables of every kind through the command line: what is assumed, and what is refused."""

import gzip
import io
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from openpyxl import Workbook
from PIL import Image

import featurecache as fc
from featurecache.datasets.label_columns import describe_label_columns, describe_unused_columns
from tests.inputs.tables import Load, workbook

MASS = {"Mass": [1, 0, 1, None]}
ROWS = [["a.png", "1", "Müller"], ["b.png", "0", ""], ["c.png", "1", "x"], ["d.png", "", "y"]]


def written(separator: str) -> str:
    return "".join(separator.join(row) + "\n" for row in [["path", "Mass", "who"], *ROWS])


ACCEPTED = {
    # The file.
    "comma": ("t.csv", written(","), None),
    "semicolon": ("t.csv", written(";"), "columns of t.csv are separated by semicolons"),
    "tab": ("t.csv", written("\t"), "separated by tabs"),
    "bar": ("t.txt", written("|"), "separated by bars"),
    "tsv": ("t.tsv", written("\t"), None),
    "sep-line": ("T.CSV", "sep=;\r\n" + written(";"), None),
    "byte-order-mark": ("t.csv", written(",").encode("utf-8-sig"), None),
    "utf-16": ("t.csv", written("\t").encode("utf-16"), "read as UTF-16"),
    "cp1252": ("t.csv", written(";").encode("cp1252"), "not UTF-8 and is read as cp1252"),
    "gz": ("t.csv.gz", gzip.compress(written(";").encode(), mtime=0), "semicolons"),
    "parquet": ("t.parquet", pd.DataFrame(ROWS, columns=["path", "Mass", "who"]), None),
    "numbers": (
        "t.parquet",
        pd.DataFrame({"path": [row[0] for row in ROWS], "Mass": [1.0, 0.0, 1.0, None]}),
        None,
    ),
    "excel": (
        "t.xlsx",
        workbook(
            [
                ["path", "Mass", "who"],
                ["a.png", 1, "Müller"],
                ["b.png", 0],
                ["c.png", True],
                [],
                ["d.png", None],
            ]
        ),
        None,
    ),
    "excel-with-a-title": (
        "t.xlsx",
        workbook(
            [
                ["Radiology"],
                [],
                ["path", "Mass"],
                ["a.png", 1],
                ["b.png", "nein"],
                ["c.png", "ja"],
                ["d.png", "#N/A"],
            ]
        ),
        "header of t.xlsx is row 3; .* is a title",
    ),
    "excel-sheets": (
        "t.xlsx",
        workbook([["path", "Mass"], *([row[0], row[1]] for row in ROWS)], [["other"]]),
        "2 sheets; the first that is not hidden is read, 'sheet 1'",
    ),
    # The paths.
    "column-by-files": (
        "t.csv",
        "who,Image Index,Mass\nx,a.png,1\ny,b.png,0\nz,c.png,1\nw,d.png,\n",
        "the images are those of the column 'Image Index'",
    ),
    "absolute": (
        "t.csv",
        "path,Mass\nROOT/a.png,1\nROOT/b.png,0\nc.png,1\nROOT/d.png,\n",
        "3 absolute paths are read as relative",
    ),
    "blank-path": (
        "t.csv",
        "path,Mass\na.png,1\n,1\nb.png,0\nnan,0\nc.png,1\nd.png,\n",
        "2 rows have no path, and are left out",
    ),
    "other-root": (
        "t.csv",
        "path,Mass\nC:\\pacs\\a.png,1\nC:\\pacs\\b.png,0\nC:\\pacs\\c.png,1\nC:\\pacs\\d.png,\n",
        "4 paths with backslashes.* read without their first folder, where 4 of 4",
    ),
    "prefix": (
        "t.csv",
        "path,Mass\nCheXpert/x/a.png,1\nCheXpert/x/b.png,0\nCheXpert/x/c.png,1\nCheXpert/x/d.png,\n",
        "read without their first 2 folders",
    ),
    "no-suffix": (
        "t.csv",
        "patientId,Mass\na,1\nb,0\nc,1\nd,\n",
        "column 'patientId'. .*with the suffix .png",
    ),
    "up": (
        "lists/t.csv",
        "path,Mass\na.png,1\nb.png,0\nc.png,1\nd.png,\n",
        "relative to the folder above",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_table_is_read_and_what_was_assumed_is_reported(load: Load, case: str) -> None:
    name, table, note = ACCEPTED[case]
    loaded = load(table, "--label-column Mass", name=name)
    assert loaded.labels == MASS
    assert [Path(path).stem for path in loaded.dataset.images["path"]] == list("abcd")
    assert all(file.is_file() for file in loaded.dataset.files().values())
    assert bool(re.search(note or "is read|separated|paths|column", loaded.notes)) == bool(note)


def test_images_in_a_subfolder_are_found(load: Load) -> None:
    images = tuple(f"images/{letter}.dcm" for letter in "ab")
    loaded = load("sop,x\na,1\nb,2\n", "--path-column sop", images=images)
    assert loaded.dataset.images["path"].tolist() == list(images)
    assert "read below the folder 'images', with the suffix .dcm" in loaded.notes


@pytest.mark.parametrize("suffix", ["parquet", "xlsx"])
def test_ids_keep_their_zeros(load: Load, suffix: str) -> None:
    rows = [["path", "id", "patient", "Mass"], ["a.png", "007", 7, True], ["b.png", "08", 8, False]]
    table = workbook(rows) if suffix == "xlsx" else pd.DataFrame(rows[1:], columns=rows[0])
    options = "--label-column Mass --id-column id --patient-column patient"
    loaded = load(table, options, name=f"t.{suffix}")
    assert loaded.dataset.images["id"].tolist() == ["007", "08"]
    assert loaded.dataset.images["patient"].tolist() == ["7", "8"]
    assert loaded.labels == {"Mass": [1, 0]}


def test_zeros_that_excel_only_shows_are_read(load: Load) -> None:
    book = Workbook()
    rows = [["path", "pid", "n", "Mass"], ["a.png", 42, 7, 1], ["b.png", 1234567, 8.5, 0]]
    for row in rows:
        book.active.append(row)
    for row in book.active.iter_rows(min_row=2, min_col=2, max_col=3):
        row[0].number_format, row[1].number_format = "000000", "0.00"
    file = io.BytesIO()
    book.save(file)
    options = "--label-column Mass --patient-column pid --id-column n"
    images = load(file.getvalue(), options, name="t.xlsx").dataset.images
    assert images["patient"].tolist() == ["000042", "1234567"]
    assert images["id"].tolist() == ["7", "8.5"]


def test_numbers_that_excel_has_rounded_are_refused(load: Load) -> None:
    header, numbers = ["path", "pid", "Mass"], [1234567890123450, 1.23456789012346e18]
    rows = [[f"{name}.png", number, 1] for name, number in zip("ab", numbers, strict=True)]
    with pytest.raises(AssertionError, match="column 'pid' has 2 numbers of more than 15 digits"):
        load(workbook([header, *rows]), "--label-column Mass --patient-column pid", name="t.xlsx")
    assert len(load(workbook([header, *rows]), "--label-column Mass", name="t.xlsx").dataset) == 2
    # Written by a library, which keeps all digits, or as text.
    for patients in ([1234567890123456, 1234567890123450], [str(n) for n in (10**15, 10**16)]):
        rows = [[f"{name}.png", n, 1] for name, n in zip("ab", patients, strict=True)]
        options = "--label-column Mass --patient-column pid"
        images = load(workbook([header, *rows]), options, name="t.xlsx").dataset.images
        assert images["patient"].tolist() == list(map(str, patients))


def test_given_encoding_and_separator_are_used(load: Load) -> None:
    table = "path;Łódź\na.png;1\nb.png;0\n".encode("cp1250")
    loaded = load(table, "--encoding cp1250 --separator ; --label-column Łódź")
    assert loaded.labels == {"Łódź": [1, 0]}


def test_table_without_labels_is_read_and_says_what_looks_like_labels(load: Load) -> None:
    rows = [
        "path;sex;split;Mass;Edema;found;kind;note",
        "a.png;F;train;0;yes;Mass|Edema;x;some text",
        "b.png;F;train;1;yes;Mass;y;other text",
        "c.png;M;train;-1;yes;Mass|Edema;x;more text",
        "d.png;F;train;0;yes;Mass;y;last text",
    ]
    loaded = load("\n".join(rows) + "\n", "--sex-column sex")
    assert loaded.labels == {}
    assert (
        "so the images have no labels. These columns look like labels: 'Mass', 'Edema' (as "
        "`labels`); 'found' (as `multilabel`); 'kind' (as `classes`)." in loaded.notes
    )


def test_pattern_selects_columns_of_labels(load: Load) -> None:
    loaded = load("path,F_b,F_a,G\na.png,1,0,1\nb.png,0,1,1\n", "--label-column F*")
    assert loaded.labels == {"F_b": [1, 0], "F_a": [0, 1]}


BOXES = """patientId,who,fold,x,Target,Mass
a.png,p1,train,5,1,
a.png,p1,train,9,1,0
b.png,p2,test,,0,
b.png,p2,test,,1,
c.png,p3,val,,0,
"""


def test_rows_of_one_image_are_joined(load: Load) -> None:
    options = "--label-column Target --label-column Mass --patient-column who --split-column fold"
    loaded = load(BOXES, f"{options} --age-column x")
    assert loaded.labels == {"Target": [1, 1, 0], "Mass": [0, None, None]}
    assert loaded.dataset.images["split"].tolist() == ["train", "test", "val"]
    assert "2 images are listed in 4 rows, which are joined." in loaded.notes
    assert loaded.dataset.images["age"].tolist() == ["", "", ""]
    assert "The rows of 1 image differ in the age, which is treated as unknown." in loaded.notes


def test_rows_of_one_image_name_its_patient_in_any_spelling(load: Load) -> None:
    table = "path,who,Mass\na.png,1,0\na.png,01,1\na.png,,0\nb.png,2.0,0\n"
    loaded = load(table, "--label-column Mass --patient-column who")
    assert loaded.labels == {"Mass": [1, 0]}
    assert loaded.dataset.images["patient"].tolist() == ["1", "2.0"]


def test_only_column_of_files_is_that_of_the_images(load: Load) -> None:
    loaded = load("aufnahme,Mass\nx/IM1,1\nx/IM2,0\n", "--label-column Mass", images=("x/IM1",))
    assert "The paths of the images are those of the column 'aufnahme'." in loaded.notes


def test_sentences_of_a_message_end_once(load: Load) -> None:
    with pytest.raises(AssertionError) as raised:
        load("x;y\n1;ä\n".encode("cp1252"))
    assert "it has x, y. t.csv is not UTF-8" in " ".join(str(raised.value).split())
    assert ".." not in str(raised.value)


def test_excluded_rows_are_counted(load: Load) -> None:
    loaded = load("path,Mass\na.png,1\n,0\nb.png,0\n", "--label-column Mass")
    assert loaded.dataset.excluded == {"row without a path": 1}


REFUSED = {
    "two-separators": (
        "name, first;path\nDoe, J;a.png\n",
        "",
        "may be separated in 2 ways: by commas, .*by semicolons, .*Give the --separator",
    ),
    "unknown-encoding": ("path\na.png\n", "--encoding latin-42", "no --encoding 'latin-42'"),
    "no-text": (b"path\n\x81\n", "", "cannot be read as a table"),
    "utf-16-without-mark": ("path\nß.png\n".encode("utf-16-le"), "", "give its --encoding"),
    "no-such-pattern": ("path,M\na.png,1\n", "--label-column F*", r"no column .* matches 'F\*'"),
    "several-path-columns": (
        "image,thumb\na.png,b.png\nc.png,d.png\n",
        "",
        "several columns that may hold the paths .* 'image', 'thumb': give one as --path-column",
    ),
    "no-path-column": ("x,y\n1,2\n", "", "none of its columns names images: give .*--path-column"),
    "no-such-paths": (
        "path\nx/1.png\nx/2.png\n",
        "",
        "none of 2 paths in the column 'path' .* exists below .*'x/1.png'. .*as --images-root",
    ),
    "absolute-paths": (
        "path\n/far/x/1.png\n/far/y/2.png\n",
        "",
        "are absolute, and lie below /far instead of .* as --images-root",
    ),
    "same-paths": (
        "path\nx/a.png\ny/a.png\n",
        "",
        "exist only without their first folder, where several are the same. .* --images-root",
    ),
    "blank-paths": ("path,x\n,1\nnan,2\n", "", "'path' of .* is empty in every row"),
    "outside": ("path\n../a.png\n", "", "leaves the root with '..'"),
    "two-patients": (
        BOXES.replace("9", "8").replace("a.png,p1,train,8", "a.png,p9,train,8"),
        "--patient-column who",
        "lines 2 and 3: two rows of the image 'a.png' differ in the patient",
    ),
    "two-splits": (
        BOXES.replace("b.png,p2,test,,1", "b.png,p2,train,,1"),
        "--patient-column who --split-column fold",
        "lines 4 and 5: two rows of the image 'b.png' differ in the split",
    ),
    "two-classes": (
        "path,kind\na.png,x\na.png,y\n",
        "--class-column kind",
        "lines 2 and 3: .*different classes: .* as --multilabel-column",
    ),
    "words-without-labels": ("path\na.png\n", "--positive x", "words in columns of --label-column"),
    "separator-without-labels": (
        "path\na.png\n",
        "--label-separator ;",
        "--label-separator joins the labels of --multilabel-column",
    ),
    "two-kinds-of-labels": (
        "path,kind\na.png,x\n",
        "--class-column kind --label-column kind",
        "give one of --label-column",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ambiguous_or_wrong_table_is_refused_with_what_to_do(load: Load, case: str) -> None:
    table, options, message = REFUSED[case]
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        load(table, options)


@pytest.mark.parametrize(("name", "module"), [("t.xlsx", "openpyxl"), ("t.parquet", "pyarrow")])
def test_package_for_excel_and_parquet_is_named(load: Load, monkeypatch, name, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.parquet", None)
    start = b"PK\x03\x04" if module == "openpyxl" else b"PAR1"
    with pytest.raises(AssertionError, match=rf"needs {module}: pip install '.*\[tables\]'"):
        load(start, name=name)


def test_notes_are_printed_and_kept_in_the_cache(run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for image in ("a.png", "b.png", "c.png", "d.png"):
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / image)
    (tmp_path / "t.csv").write_text("image;Mass\n" + "".join(f"{r[0]};ja\n" for r in ROWS))
    outcome = run("extract", "--data-root", "t.csv", "--label-column", "Mass", "--negative", "")
    assert outcome.code == 0, outcome.stderr
    cache = fc.open_cache("cache/t/tiny.h5")
    for note in ("separated by semicolons", "column 'image'", "'ja' (4) read as positive"):
        assert note in " ".join(outcome.stderr.split())
        assert any(note in written for written in cache.header.notes)


@pytest.mark.parametrize(
    ("name", "is_patient"),
    [
        *((name, True) for name in ("pat", "PAT_ID", "PatID", "pid", "Patientennummer", "pt no")),
        *((name, False) for name in ("pattern", "path of lung", "patient age", "options")),
    ],
)
def test_column_of_patients_is_recognized_by_its_name(name: str, is_patient: bool) -> None:
    head = pd.DataFrame({"path": [f"{n}.png" for n in range(8)], name: list("xxxxyyyy")})
    note = describe_label_columns(head, ["path"], Path("t.csv"))
    assert ("(as `classes`)" in note) == (not is_patient)
    notes = describe_unused_columns(head, ["path"], ["patient", "split"])
    assert bool(notes) == is_patient


def test_columns_of_patients_and_splits_that_were_not_chosen_are_named(load: Load) -> None:
    rows = ["path;Patient ID;Patient Age;fold;Mass"]
    rows += [f"{name}.png;{name};50;{'Train' if name < 'c' else 'valid'};1" for name in "abcd"]
    table = "\n".join(rows) + "\n"
    notes = load(table, "--label-column Mass").notes
    assert "The column 'Patient ID' looks like patients: to use it, give it as `patient`." in notes
    assert "The column 'fold' looks like splits: to use it, give it as `split`." in notes
    assert "The column 'Patient Age' looks like ages: to use it, give it as `age`." in notes
    assert notes.count("looks like") == 3
    chosen = (
        "--label-column Mass --patient-column Patient_ID --split-column fold "
        "--age-column Patient_Age"
    )
    assert "looks like" not in load(table, chosen).notes


@pytest.mark.parametrize(
    ("names", "role"),
    [
        (["sex", "Gender", "PatientSex", "Patient Gender", "PatientSex_DICOM"], "sex"),
        (["age", "AGE", "PatientAge", "Patient Age", "age_years"], "age"),
        (["view", "ViewPosition", "View Position", "AP/PA", "Frontal/Lateral"], "view"),
        (["position", "stage", "image", "review", "average age", "sexual health"], None),
    ],
)
def test_columns_of_attributes_are_recognized_by_their_names(
    names: list[str], role: str | None
) -> None:
    head = pd.DataFrame({name: ["x"] for name in ["path", *names]})
    notes = describe_unused_columns(head, ["path"], ["view", "sex", "age"])
    assert len(notes) == (len(names) if role else 0)
    assert all(note.endswith(f"give it as `{role}`.") for note in notes)
