"""Remember the probe of an encoder on this machine, in the user's cache folder."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from featurecache.device import describe_processor
from featurecache.encoders.encoder import library_versions
from featurecache.encoders.openvino import OPENVINO_LIBRARIES
from featurecache.errors import FeaturecacheWarning
from featurecache.execution import Execution, Probe
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_file
from featurecache.io.fingerprint import canonical_json, fingerprint
from featurecache.io.user_cache import user_cache

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder
    from featurecache.features import Features


class _Record(TypedDict):
    subject: dict[str, object]
    probe: Probe


class ProbeMemory:
    """The probe of an encoder on this machine, with these versions of the libraries.

    Args:
        encoder: An encoder of the network.
        features: The features that the network computes together.
        executions: The executions that are compared.
        batch_size: Number of images per forward pass.
    """

    def __init__(
        self,
        encoder: "Encoder",
        features: "Sequence[Features]",
        executions: Sequence[Execution],
        *,
        batch_size: int,
    ) -> None:
        import torch

        backends = {one.backend for one in executions}
        self._subject: dict[str, object] = {
            "processor": describe_processor(encoder.device),
            "threads": torch.get_num_threads(),
            "network": encoder.network_id or dict(encoder.image_spec),
            "features": [str(one) for one in features],
            "libraries": library_versions(
                "torch", *(OPENVINO_LIBRARIES if "openvino" in backends else ())
            ),
            "executions": [str(one) for one in executions],
            "batch_size": batch_size,
        }

    def recall(self) -> Probe | None:
        """Return the remembered probe; a damaged one counts as none, with a warning."""
        try:
            path = self._path
            if not path.exists():
                return None
            record: _Record = strict_json.validate(strict_json.read(path), _Record)
        except (OSError, ValueError) as error:
            warnings.warn(
                f"a remembered measurement cannot be read ({error}): measuring again",
                FeaturecacheWarning,
                stacklevel=2,
            )
            return None
        return record["probe"]

    def remember(self, probe: Probe) -> None:
        """Write a probe; warn if the user's cache folder cannot be written."""
        record = _Record(subject=self._subject, probe=probe)
        try:
            with new_file(self._path) as unfinished:
                unfinished.write_text(canonical_json(record), encoding="utf-8")
        except OSError as error:
            warnings.warn(
                f"the measurement cannot be remembered ({error})",
                FeaturecacheWarning,
                stacklevel=2,
            )

    @property
    def _path(self) -> Path:
        return user_cache() / "probes" / f"{fingerprint(self._subject)}.json"
