"""The download of MedCLIP's weights, which are not on the hub."""

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
"""Seconds without any byte before the server counts as out of reach."""


def download_medclip() -> Path:
    """The folder with MedCLIP's ``pytorch_model.bin``, downloaded at the first call.

    It lies beside the hub's cache, in ``$HF_HOME/featurecache/``; ``HF_HUB_OFFLINE`` holds.

    Raises:
        CheckpointError: the file is not there and cannot be downloaded.
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
            "connect, pass --weights with its pytorch_model.bin or its unpacked folder, or put "
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
