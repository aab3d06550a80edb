"""Train ``tiny``, the small encoder that ships with the package, from random weights.

    python pipelines/train_tiny.py WORK --data DATA

WORK is a folder for intermediate files, DATA holds ``kermany/`` and ``nih/``; the same command
continues an interrupted training. The training images are a phantom with its own seed, the training
images of Kermany, and the NIH images that are neither in the official test list nor in the test
split by patient. Training is contrastive against captions of the labels, with distillation from
DINOv2-small on real images. The result replaces ``featurecache/encoders/tiny/``.
"""

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.kermany import load_kermany
from featurecache.datasets.load import load_dataset
from featurecache.datasets.nih import LABELS, TEST_LIST
from featurecache.datasets.phantom.folder import generate_phantom, load_phantom
from featurecache.encoders.loading import load_encoder
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.distillation import Teacher
from featurecache.finetune.random_init import load_source, randomly_initialized
from featurecache.finetune.run import train_encoder
from featurecache.finetune.training_state import state_folder
from featurecache.images.decode import decode_image
from featurecache.prompts import PROMPT_SETS
from featurecache.provenance.perceptual_hash import perceptual_hash
from featurecache.provenance.provenance import PROVENANCE_FILE, Provenance
from featurecache.provenance.records import ImageRecords

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PACKAGED = Path(__file__).parents[1] / "featurecache" / "encoders" / "tiny"

PIXELS = 128
TOKENS, VOCABULARY = 32, 640
DIM = 128
WIDTHS = (64, 128, 256, 512)
VISION = {"embedding_size": 32, "hidden_sizes": list(WIDTHS), "depths": [2, 2, 2, 2]}
TEXT = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
PHANTOM_SEED, PHANTOM_IMAGES = 1, 6000
"""Not the default seed of phantom: tiny has seen none of its images."""

SETTINGS = FinetuneConfig(
    objective="contrastive",
    init="random",
    prompts="signs",
    teacher_weight=1.0,
    learning_rate=1e-3,
    weight_decay=0.05,
    epochs=30,
    batch_size=32,
    micro_batch_size=32,
    patience=30,
    precision="bf16",
    seed=0,
)


def main() -> None:
    """Train tiny and put it into the package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    work, data = arguments.work.resolve(), arguments.data.resolve()
    architecture = work / "tiny"
    if not architecture.is_dir():
        write_architecture(architecture)
    phantom = work / "phantom"
    if not phantom.is_dir():
        generate_phantom(phantom, n_images=PHANTOM_IMAGES, seed=PHANTOM_SEED)
    dataset, provenance = training_data(phantom, data)
    run = work / "run"
    if not run.is_dir():
        encoder = randomly_initialized(
            load_source(str(architecture), device="auto", precision=SETTINGS.precision),
            folder=state_folder(run) / "start",
            seed=SETTINGS.seed,
            precision=SETTINGS.precision,
        )
        train_encoder(
            dataset,
            encoder,
            SETTINGS,
            target=run,
            teacher=Teacher(load_encoder("dinov2-small"), rows=real_training_rows(dataset)),
            progress=lambda done, total, detail: print(
                f"\r{done}/{total} {detail:40s}", end="", flush=True
            ),
        )
    package(run / "encoder", provenance)
    print(f"\ntiny is in {PACKAGED}; evaluate it with pipelines/measure_tiny.py")


def training_data(phantom: Path, data: Path) -> tuple[Dataset, Provenance]:
    """Return the training and validation images of the three data sets as one, and what they are.

    A normal image of Kermany is negative for all findings; one with pneumonia is positive for
    pneumonia, and the other findings are unknown.
    """
    kermany = load_kermany(data / "kermany")
    nih = load_dataset("nih", data, split="patient")
    official_test = set((data / "nih" / TEST_LIST).read_text(encoding="utf-8").split())
    synthetic = load_phantom(phantom)
    pneumonia = LABELS.index("Pneumonia")
    normal = kermany.label_values == 0
    kermany_labels = np.repeat(np.where(normal, 0, -1).astype(np.int8), len(LABELS), axis=1)
    kermany_labels[:, pneumonia] = kermany.label_values[:, 0]
    sources = [
        _select(kermany, kermany_labels),
        _select(nih, nih.label_values, without=official_test),
        _select(synthetic, synthetic.label_values),
    ]
    images = pd.concat([table for table, _ in sources], ignore_index=True)
    root = Path(os.path.commonpath([phantom, data]))
    images["path"] = [str(Path(path).relative_to(root)) for path in images["path"]]
    provenance = Provenance()
    for source, (table, _) in zip((kermany, nih, synthetic), sources, strict=True):
        ids = [identifier.partition("/")[2] for identifier in table["id"]]
        rows = np.flatnonzero(source.images["id"].isin(ids))
        # A phantom is the same wherever it is generated, so its ids say it all.
        records = source.records(rows) if source is synthetic else _records(source, rows)
        provenance = provenance.with_training(records)
    labels = np.concatenate([values for _, values in sources])
    return (
        Dataset(name="tiny-training", root=root, images=images, labels=labels, label_names=LABELS),
        provenance,
    )


def _records(dataset: Dataset, rows: "np.typing.NDArray[np.intp]") -> ImageRecords:
    """Return what identifies these images, hashes of their content included."""
    data = [(dataset.root / path).read_bytes() for path in dataset.images["path"].iloc[rows]]
    return dataset.records(
        rows,
        sha256=[hashlib.sha256(content).hexdigest() for content in data],
        perceptual_hash=np.stack([perceptual_hash(decode_image(content)) for content in data]),
    )


def real_training_rows(dataset: Dataset) -> "np.typing.NDArray[np.intp]":
    """Return the rows for the teacher: synthetic images hold nothing beyond their labels."""
    synthetic = dataset.images["id"].str.startswith("phantom/").to_numpy()
    train = dataset.rows("train")
    return train[~synthetic[train]]


def _select(
    dataset: Dataset,
    labels: "np.typing.NDArray[np.int8]",
    *,
    without: Collection[str] = (),
) -> tuple[pd.DataFrame, "np.typing.NDArray[np.int8]"]:
    """Return the rows that may be trained on, with unique ids and patients."""
    excluded = (dataset.images["split"] == "test") | dataset.images["id"].isin(without)
    kept = ~excluded.to_numpy()
    table = dataset.images[kept].copy()
    for column in ("id", "patient"):
        table[column] = f"{dataset.name}/" + table[column]
    table["path"] = [str(dataset.root / path) for path in table["path"]]
    return table, labels[kept]


def package(encoder: Path, provenance: Provenance) -> None:
    """Write the encoder into the package, its weights in float16."""
    import torch
    from safetensors.torch import load_file, save_file

    PACKAGED.mkdir(exist_ok=True)
    for path in encoder.iterdir():
        if path.suffix == ".json":
            shutil.copyfile(path, PACKAGED / path.name)
    weights = load_file(encoder / "model.safetensors")
    half = {name: value.to(torch.float16) for name, value in weights.items()}
    save_file(half, PACKAGED / "model.safetensors", metadata={"format": "pt"})
    document = json.dumps(provenance.to_json())
    (PACKAGED / PROVENANCE_FILE).write_text(document + "\n", encoding="utf-8")


def write_architecture(folder: Path) -> None:
    """Write the configuration, image processor and tokenizer of a dual encoder.

    The vision tower is convolutional: on so few images it learns far more in the same time than a
    vision transformer (see the model card). It uses group norm, so that an embedding does not
    depend on the rest of the batch, in training either.
    """
    from transformers import BertConfig, BitConfig, VisionTextDualEncoderConfig

    folder.mkdir(parents=True)
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(folder)
    text = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        **TEXT,
    )
    # VisionTextDualEncoderModel needs the hidden_size of its vision tower, which the configuration
    # of BiT lacks.
    vision = BitConfig(num_groups=16, layer_type="preactivation", hidden_size=WIDTHS[-1], **VISION)
    VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=DIM
    ).save_pretrained(folder)
    processor: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        # The whole image: a center crop would cut the costophrenic angles of wide ones.
        "size": {"height": PIXELS, "width": PIXELS},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    document = json.dumps(processor, indent=2)
    (folder / "preprocessor_config.json").write_text(document + "\n", encoding="utf-8")


def train_tokenizer() -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE tokenizer on the prompts; it can encode any other text as well."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [
        text
        for prompts in PROMPT_SETS.values()
        for texts in (*prompts.positive_texts(LABELS), *prompts.negative_texts(LABELS))
        for text in texts
    ]
    tokenizer.train_from_iterator(
        [*corpus, "no abnormality", "normal lungs", "and"],
        BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<start>", "<end>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("<start>", "<end>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<pad>"
    )


if __name__ == "__main__":
    main()
