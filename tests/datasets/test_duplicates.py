from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.duplicates import identical_files


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=2), max_size=8))
def test_files_are_grouped_if_and_only_if_identical(contents: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        groups = identical_files(paths)
        together = {pair for group in groups for pair in combinations(group, 2)}
        assert together == {
            (first, second)
            for first, second in combinations(paths, 2)
            if first.read_bytes() == second.read_bytes() != b""
        }


def test_kermany_data_set_has_twelve_pairs_of_copies(shared_data: Path) -> None:
    groups = identical_files(sorted((shared_data / "kermany").rglob("*.jpeg")))
    assert len(groups) == 12
    assert {len(group) for group in groups} == {2}
    names = [sorted(path.name for path in group) for group in groups]
    assert ["NORMAL2-IM-0095-0001.jpeg", "NORMAL2-IM-0096-0001.jpeg"] in names
    assert ["person401_virus_797.jpeg", "person401_virus_798.jpeg"] in names


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch) -> None:
    read = []
    monkeypatch.setattr(
        "featurecache.datasets.duplicates.sha256_of_file",
        lambda path: read.append(path.name) or path.read_bytes().hex(),
    )
    for name, content in {"a": b"1", "b": b"22", "c": b"33", "d": b"4444"}.items():
        (tmp_path / name).write_bytes(content)
    assert identical_files(sorted(tmp_path.iterdir())) == []
    assert read == ["b", "c"]
