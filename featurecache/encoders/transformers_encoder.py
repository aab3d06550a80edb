"""The base of encoders whose checkpoint is in the layout of transformers."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from featurecache.encoders.checkpoint import Checkpoint, tokenizer_files, tokenizer_hashes
from featurecache.encoders.checkpoint_encoder import CheckpointEncoder
from featurecache.encoders.pretrained import (
    ImageProcessor,
    load_config,
    load_network,
    load_tokenizer,
    processor_files,
    random_network,
    write_network,
)
from featurecache.errors import CheckpointError


class TransformersEncoder(CheckpointEncoder):
    """An encoder read from ``config.json``, with the image processor and tokenizer beside it."""

    model_types: ClassVar[tuple[str, ...]]
    """The values of ``model_type`` in ``config.json`` that the class supports."""

    _unused: tuple[str, ...] = ()
    """Prefixes of weights that a checkpoint may have and that are not loaded."""

    _options: Mapping[str, Any] = MappingProxyType({})
    """Further arguments of the class of the network."""

    def __init__(self, checkpoint: Checkpoint, *, name: str, device: str, precision: str) -> None:
        """Read the configuration, the image processor and the tokenizer, but no weights.

        Raises:
            CheckpointError: A file is missing or malformed, or the model type is not supported.
        """
        super().__init__(checkpoint, name=name, device=device, precision=precision)
        self._config = load_config(checkpoint)
        self._family = self._config.model_type
        self._check_config()
        if self.has_images:
            self._processor = ImageProcessor(checkpoint.folder)
        if self.has_text:
            self._tokenizer = load_tokenizer(checkpoint.folder)

    def use_resize(self, resize: str) -> None:
        """See ``Encoder.use_resize``."""
        if not self.has_images:
            super().use_resize(resize)
            return
        self._processor = ImageProcessor(self._checkpoint.folder, resize=resize)
        self.resize = self._processor.resize

    def _check_config(self) -> None:
        if self._family not in self.model_types:
            raise CheckpointError(
                f"{self.name} has model_type {self._family!r} in its config.json, "
                f"where one of {', '.join(self.model_types)} is needed"
            )

    def _load_network(self) -> Any:
        return load_network(self._checkpoint, unused=self._unused, **self._options)

    def _random_network(self, seed: int) -> Any:
        return random_network(self._checkpoint, seed=seed, **self._options)

    def _write_network(self, network: Any, folder: Path) -> None:
        write_network(network, folder)

    def _companion_files(self) -> tuple[Path, ...]:
        folder = self._checkpoint.folder
        return (
            *(processor_files(folder) if self.has_images else ()),
            *(tokenizer_files(folder) if self.has_text else ()),
        )

    def _tokenizer_spec(self, **settings: Any) -> dict[str, Any]:
        return {
            "class": type(self._tokenizer).__name__,
            "files": tokenizer_hashes(self._checkpoint.folder),
            "max_tokens": self.max_tokens,
            "padding_side": self._tokenizer.padding_side,
            **settings,
        }

    def _token_counts(self, texts: list[str]) -> list[int]:
        # Quietly: the tokenizer warns of long texts itself.
        return [len(ids) for ids in self._tokenizer(texts, verbose=False)["input_ids"]]

    def _tokenize(self, texts: list[str], *, padding: str = "longest") -> Any:
        return self._tokenizer(
            texts,
            padding=padding,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
