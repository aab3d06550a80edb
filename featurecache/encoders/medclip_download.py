"""Download MedCLIP's weights, which are not on the Hugging Face hub."""

import shutil
import tempfile
from pathlib import Path
from urllib.request import urlopen
from zipfile import BadZipFile, ZipFile

from featurecache.errors import CheckpointError
from featurecache.io.atomic import new_folder

URL = "https://storage.googleapis.com/pytrial/medclip-vit-pretrained.zip"
_FILE = "pytorch_model.bin"
_TIMEOUT = 10.0
"""Seconds without data before the download fails."""


def download_medclip() -> Path:
    """Return the folder of MedCLIP's ``pytorch_model.bin``, downloading it at the first call.

    It is kept beside the hub's cache, in ``$HF_HOME/featurecache/``; ``HF_HUB_OFFLINE`` applies.

    Raises:
        CheckpointError: The file is missing and cannot be downloaded.
    """
    from huggingface_hub.constants import HF_HOME, HF_HUB_OFFLINE

    target = Path(HF_HOME) / "featurecache" / "medclip-vit-pretrained"
    if target.is_dir():
        return target
    try:
        if HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        _fetch(target)
    except (OSError, BadZipFile, StopIteration) as error:
        raise CheckpointError(
            f"the weights of medclip are not on this machine and {URL} could not be downloaded: "
            "connect, give its pytorch_model.bin or its unpacked folder as `weights`, or put "
            "that at $FEATURECACHE_MODELS/medclip"
        ) from error
    return target


def _fetch(target: Path) -> None:
    with tempfile.TemporaryFile() as archive:
        with urlopen(URL, timeout=_TIMEOUT) as response:
            shutil.copyfileobj(response, archive)
        with ZipFile(archive) as content, new_folder(target) as folder:
            member = next(name for name in content.namelist() if Path(name).name == _FILE)
            with content.open(member) as source, (folder / _FILE).open("xb") as copy:
                shutil.copyfileobj(source, copy)
