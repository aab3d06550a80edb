import pytest

from featurecache.provenance.encoder_spec import spec_difference

SPEC = {"model": "a", "libraries": {"torch": "2"}}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({}, None),
        ({"views": 2, "view_changes": {"seed": 0}}, "views: 1 against 2"),
        ({"features": "pooled", "grid": 4, "model": "b"}, "features: 'default' against 'pooled'"),
        ({"model": "b"}, "model: 'a' against 'b'"),
        ({"libraries": {"torch": "3"}}, "libraries.torch: '2' against '3'"),
    ],
)
def test_choices_of_the_user_are_named_first(other: dict, difference: str | None) -> None:
    assert spec_difference(SPEC, {**SPEC, **other}) == difference
