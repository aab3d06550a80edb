"""Prompt files: JSON and TOML."""

import json
from pathlib import Path

from featurecache.errors import PromptError
from featurecache.prompts import load_prompts
from tests.fuzz.changes import changed_bytes, changed_json
from tests.fuzz.readers import Reader

_PROMPTS = {
    "name": "mine",
    "templates": ["signs of {pathology}", "{pathology} is seen"],
    "negatives": ["no {pathology}"],
    "phrases": {"Mass": "pulmonary mass"},
    "prompts": {"Edema": ["wet lungs", "water in the lungs"]},
    "negative_prompts": {"Edema": ["dry lungs"]},
}
_TOML = """name = "mine"
templates = ["signs of {pathology}", "{pathology} is seen"]
negatives = ["no {pathology}"]
[phrases]
Mass = "pulmonary mass"
[prompts]
Edema = ["wet lungs", "water in the lungs"]
[negative_prompts]
Edema = ["dry lungs"]
"""
LABELS = ("Mass", "Edema", "Pleural_Thickening")


def _json(folder: Path) -> Path:
    (folder / "mine.json").write_text(json.dumps(_PROMPTS))
    return folder / "mine.json"


def _toml(folder: Path) -> Path:
    (folder / "mine.toml").write_text(_TOML)
    return folder / "mine.toml"


def _read(file: Path) -> object:
    prompts = load_prompts(str(file))
    texts = prompts.positive_texts(LABELS) + prompts.negative_texts(LABELS)
    assert all(text.strip() for of_label in texts for text in of_label)
    return texts


READERS = {
    "prompts-json": Reader(_json, _read, (PromptError,), changed_json),
    "prompts-toml": Reader(_toml, _read, (PromptError,), changed_bytes),
}
