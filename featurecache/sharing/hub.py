"""The Hugging Face hub: repositories that hold one cache or one run each."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

from typing_extensions import TypedDict

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.io import json as strict_json
from featurecache.io.fingerprint import canonical_json, sha256_of_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["cache", "run"]

MANIFEST: Final = "featurecache.json"
"""File that lists the others, with their sizes and hashes."""
CARD: Final = "README.md"
_GIT: Final = ".gitattributes"
_REPO_TYPES: Final[Mapping[Kind, str]] = {"cache": "dataset", "run": "model"}
_MAX_MANIFEST: Final = 2**20
"""Bytes; it has a line for each file."""


class _File(TypedDict):
    bytes: int
    sha256: str


class _Manifest(TypedDict):
    format: Literal["featurecache push"]
    version: Literal[1]
    kind: Kind
    name: str
    files: dict[str, _File]


@dataclass(frozen=True)
class Repository:
    """A repository on the hub.

    Attributes:
        id: "ORG/NAME".
        kind: What it holds.
    """

    id: str
    kind: Kind

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.id, re.ASCII):
            raise UsageError(f"the repository is {self.id!r}: give ORG/NAME")
        try:
            validate_repo_id(self.id)
        except HFValidationError as error:
            raise UsageError(f"the hub has no such repository: {error}") from error

    def send(self, files: Mapping[str, Path], *, name: str, card: str, public: bool) -> str:
        """Replace the content of the repository, which is made if it does not exist.

        Args:
            files: What to send, by its path in the repository.
            name: What it is called. A repository with something of another name is not replaced.
            card: The content of README.md.
            public: Whether a new repository is public, and an existing one may be.

        Returns:
            The address of the repository.

        Raises:
            UsageError: The repository is public, or has other content; or the hub refuses.
            FeaturecacheError: The hub cannot be reached.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        manifest: _Manifest = {
            "format": "featurecache push",
            "version": 1,
            "kind": self.kind,
            "name": name,
            "files": {
                target: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
                for target, path in sorted(files.items())
            },
        }
        with self._api() as api:
            url = api.create_repo(
                self.id, repo_type=_REPO_TYPES[self.kind], private=not public, exist_ok=True
            )
            info: Any = api.repo_info(self.id, repo_type=_REPO_TYPES[self.kind])
            if not (public or info.private):
                raise UsageError(
                    f"{self.id} is public: give `public` if everybody may read it, or another "
                    "repository"
                )
            present = {entry.rfilename for entry in info.siblings or ()}
            if others := present - {_GIT, CARD}:
                self._require_same(api, others, name, str(info.sha))
            stale = present - {_GIT, CARD, MANIFEST, *files}
            content = {CARD: card, MANIFEST: canonical_json(manifest)}
            api.create_commit(
                self.id,
                [
                    *(CommitOperationAdd(path, text.encode()) for path, text in content.items()),
                    *(CommitOperationAdd(path, str(file)) for path, file in files.items()),
                    *(CommitOperationDelete(path) for path in sorted(stale)),
                ],
                commit_message=f"Send {name}",
                repo_type=_REPO_TYPES[self.kind],
                parent_commit=info.sha,
            )
        return str(url)

    def _require_same(self, api: "HfApi", present: set[str], name: str, revision: str) -> None:
        problem = f"{self.id} has other files, such as {min(present)}"
        if MANIFEST in present:
            manifest = self._manifest(api, revision)
            if (manifest["kind"], manifest["name"]) == (self.kind, name):
                return
            problem = f"{self.id} holds {manifest['name']}"
        raise UsageError(f"{problem}: give another repository, or empty it first")

    def fetch(self, folder: Path, *, revision: str | None) -> tuple[str, list[str]]:
        """Download the repository into a folder, and check that nothing was changed or cut off.

        Args:
            folder: An empty folder.
            revision: A branch, tag or commit; None for the newest.

        Returns:
            What it is called, and the paths of its files in the folder, in their order.

        Raises:
            UsageError: There is no such repository, it holds something else, or it is damaged.
            FeaturecacheError: The hub cannot be reached.
        """
        with self._api() as api:
            # One commit, whatever is pushed in between.
            info = api.repo_info(self.id, repo_type=_REPO_TYPES[self.kind], revision=revision)
            manifest = self._manifest(api, str(info.sha))
            if manifest["kind"] != self.kind:
                raise UsageError(f"{self.id} holds a {manifest['kind']}, not a {self.kind}")
            for name, stated in manifest["files"].items():
                self._require_safe(name)
                path = Path(self._download(api, name, str(info.sha), folder))
                same = path.stat().st_size == stated["bytes"]
                if not same or sha256_of_file(path) != stated["sha256"]:
                    raise UsageError(
                        f"{name} of {self.id} is not the file that was sent: its size or SHA-256 "
                        f"differs from {MANIFEST}. Fetch it again, or have it sent again"
                    )
        return manifest["name"], sorted(manifest["files"])

    def _manifest(self, api: "HfApi", revision: str) -> _Manifest:
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = Path(self._download(api, MANIFEST, revision, None))
            if path.stat().st_size > _MAX_MANIFEST:
                raise ValueError("it is too long")
            manifest: _Manifest = strict_json.validate(strict_json.read(path), _Manifest)
        except EntryNotFoundError as error:
            raise UsageError(
                f"{self.id} has no {MANIFEST}, so it was not sent by featurecache"
            ) from error
        except ValueError as error:
            raise UsageError(f"{MANIFEST} of {self.id} is damaged: {error}") from error
        return manifest

    def _download(self, api: "HfApi", name: str, revision: str, folder: Path | None) -> str:
        return str(
            api.hf_hub_download(
                self.id,
                name,
                repo_type=_REPO_TYPES[self.kind],
                revision=revision,
                local_dir=folder,
            )
        )

    def _require_safe(self, name: str) -> None:
        parts = PurePosixPath(name).parts
        if not parts or "\\" in name or any(part.startswith((".", "/")) for part in parts):
            raise UsageError(f"{self.id} lists a file {name!r}, whose name is not allowed")

    @contextmanager
    def _api(self) -> "Iterator[HfApi]":
        """Yield the interface to the hub, and turn its errors into those of this library."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import (  # type: ignore[attr-defined]  # of its HTTP library
            HfHubHTTPError,
            HTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        arguments: dict[str, Any] = {
            # Read here, as it may be set after the library was imported.
            "endpoint": os.environ.get("HF_ENDPOINT"),
            "library_name": "featurecache",
            "library_version": version("featurecache"),
        }
        try:
            yield HfApi(**arguments)
        except FeaturecacheError:
            raise
        except OfflineModeIsEnabled as error:
            raise UsageError("HF_HUB_OFFLINE is set: unset it to reach the hub") from error
        except RevisionNotFoundError as error:
            raise UsageError(f"{self.id} has no such `revision`") from error
        except RepositoryNotFoundError as error:
            raise UsageError(
                f"there is no {_REPO_TYPES[self.kind]} {self.id} on the hub, or you may not read "
                "it: check the name, or log in with 'hf auth login'"
            ) from error
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise UsageError(
                    f"the hub refuses access to {self.id}: log in with 'hf auth login' as somebody "
                    "who may do that, or set HF_TOKEN"
                ) from error
            raise FeaturecacheError(f"the hub answers about {self.id}: {error}") from error
        except (HTTPError, LocalEntryNotFoundError) as error:
            raise FeaturecacheError(
                f"the hub cannot be reached ({error}): check the network, and try again"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:  # of its storage of large files
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of this machine's disk
            reason = str(error.__cause__ or error).partition("\n")[0]
            raise FeaturecacheError(
                f"the transfer to or from {self.id} was interrupted ({reason}), and nothing was "
                "replaced: try again"
            ) from error
