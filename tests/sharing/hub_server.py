"""A stand-in of the Hugging Face hub on this machine: repositories in memory.

Small texts are part of a commit. Other files go to a storage first, and a commit names them by
their SHA-256: by git LFS in one part or in several, from where downloads are redirected to the
storage, which has another host name, or by Xet, whose library brings a storage in a folder.
"""

import base64
import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LFS_SUFFIXES = (".h5", ".safetensors")
"""Some of the names that .gitattributes of a new repository on the hub lists."""
LFS_BYTES = 10 * 2**20
"""Other files go to the storage from this size on."""


@dataclass
class Repo:
    """A repository: whether it is private, and its files after each commit."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def sha(self, number: int = -1) -> str:
        return hashlib.sha1(str(number % len(self.commits)).encode()).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision == "main":
            return self.files
        numbers = range(len(self.commits))
        return next((self.commits[n] for n in numbers if self.sha(n) == revision), None)


@dataclass
class Hub:
    """The hub: its address, its repositories, and the requests that it got.

    Attributes:
        url: The endpoint.
        storage: Address of the storage.
        repos: By "datasets/ORG/NAME" or "models/ORG/NAME".
        objects: The storage, by SHA-256.
        xet: Folder of the storage of Xet, if files are sent so.
        xet_hashes: How objects are called there, by SHA-256.
        parts: Parts of objects that are not complete, by SHA-256 and number.
        part_bytes: Size from which on an object is sent in several parts.
        requests: Methods and paths.
        sent: Whatever the hub and the storage received: heads and bodies of requests.
        status: The answer to everything, if not None.
        upload_status: The answer of the storage to uploads, if not None.
        stored: What the storage sends instead of an object.
    """

    url: str = ""
    storage: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    xet: Path | None = None
    xet_hashes: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    part_bytes: int = 2**24
    requests: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    status: int | None = None
    upload_status: int | None = None
    stored: Callable[[bytes], bytes] = bytes

    def receive_xet(self, oid: str) -> None:
        """Take an object from the storage of Xet."""
        from hf_xet import XetFileInfo, XetSession

        digest = _in_words(bytes.fromhex(oid))
        # A shard starts with 48 bytes, and then lists its one file.
        shards = [path.read_bytes() for path in self.xet.rglob("*.mdb")]
        name = next(_in_words(shard[48:80]).hex() for shard in shards if digest in shard)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "object"
            with XetSession().new_file_download_group(
                endpoint=f"local://{self.xet}", token="t", token_expiry_unix_secs=_tomorrow()
            ) as group:
                group.start_download_file(XetFileInfo(name, None), str(target))
            content = target.read_bytes()
        assert hashlib.sha256(content).hexdigest() == oid
        self.objects[oid], self.xet_hashes[oid] = content, name


def _in_words(digest: bytes) -> bytes:
    """Return a hash with the bytes of each of its four words turned round."""
    return b"".join(digest[start : start + 8][::-1] for start in range(0, 32, 8))


def _tomorrow() -> int:
    return int(time.time()) + 86_400


def is_lfs(path: str, size: int) -> bool:
    """Return whether the hub keeps a file in its storage."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_BYTES


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty hub while the body runs."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, document: Any = b"", *, status: int = 200, **headers: str) -> None:
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def receive(self) -> bytes:
            hub.requests.append(f"{self.command} {unquote(self.path.partition('?')[0])}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.sent.append(f"{self.requestline}\n{self.headers}".encode() + body)
            return body

        def do_PUT(self) -> None:
            body = self.receive()
            if hub.upload_status:
                return self.answer(status=hub.upload_status)
            oid, _, part = self.path.removeprefix("/storage/").partition("/")
            if part:
                hub.parts.setdefault(oid, {})[int(part)] = body
            elif hashlib.sha256(body).hexdigest() == oid:
                hub.objects[oid] = body
            else:
                return self.answer(status=400)
            return self.answer(ETag=f'"{part or oid}"')

        def upload_of(self, oid: str, size: int) -> dict[str, Any]:
            """Return how to upload an object, which is nothing if it is there."""
            if oid in hub.objects:
                return {"oid": oid, "size": size}
            upload: dict[str, Any] = {"href": f"{hub.storage}/{oid}"}
            if size > hub.part_bytes:
                count = -(-size // hub.part_bytes)
                parts = {f"{n:05}": f"{hub.storage}/{oid}/{n}" for n in range(1, count + 1)}
                upload = {
                    "href": f"{hub.url}/complete",
                    "header": {"chunk_size": str(hub.part_bytes), **parts},
                }
            verify = {"href": f"{hub.url}/verify"}
            return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

        def do_POST(self) -> None:
            body = self.receive()
            if hub.status:
                return self.answer({"error": "no"}, status=hub.status)
            if self.path == "/api/repos/create":
                given = json.loads(body)
                kind = f"{given.get('type', 'model')}s"
                name = f"{kind}/{given['organization']}/{given['name']}"
                private = given.get("private") or given.get("visibility") == "private"
                exists = name in hub.repos
                hub.repos.setdefault(name, Repo(bool(private)))
                url = f"{hub.url}/{name.removeprefix('models/')}"
                return self.answer({"url": url}, status=409 if exists else 200)
            if self.path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if self.path.endswith(".git/info/lfs/objects/batch"):
                objects = json.loads(body)["objects"]
                return self.answer(
                    {"transfer": "basic", "objects": [self.upload_of(**o) for o in objects]}
                )
            if self.path == "/complete":
                given = json.loads(body)
                parts = hub.parts.pop(given["oid"])
                content = b"".join(parts[part["partNumber"]] for part in given["parts"])
                assert hashlib.sha256(content).hexdigest() == given["oid"]
                hub.objects[given["oid"]] = content
                return self.answer({})
            if self.path == "/verify":
                given = json.loads(body)
                is_stored = len(hub.objects.get(given["oid"], b"")) == given["size"]
                return self.answer(status=200 if is_stored else 404)
            match = re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/(\w+)/main", self.path)
            assert match, self.path
            repo = hub.repos[match[1]]
            if match[2] == "preupload":
                files = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_lfs(file["path"], file["size"]) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
                return self.answer({"files": files})
            repo.commits.append(dict(repo.files))
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    content = base64.b64decode(value["content"])
                    assert not is_lfs(value["path"], len(content)), value["path"]
                    repo.files[value["path"]] = content
                elif line["key"] == "lfsFile":
                    if value["oid"] not in hub.objects:
                        hub.receive_xet(value["oid"])
                    repo.files[value["path"]] = hub.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del repo.files[value["path"]]
            address = f"{hub.url}/{match[1].removeprefix('models/')}/commit/{repo.sha()}"
            return self.answer({"commitUrl": address, "commitOid": repo.sha()})

        def do_GET(self) -> None:
            self.receive()
            path = unquote(self.path.partition("?")[0])
            if hub.status:
                return self.answer({"error": "no"}, status=hub.status)
            if path.startswith("/storage/"):
                return self.answer(hub.stored(hub.objects[path.removeprefix("/storage/")]))
            if re.search(r"/xet-(read|write)-token/", path):
                if hub.upload_status:
                    return self.answer(status=hub.upload_status)
                token = {"accessToken": "t", "exp": _tomorrow(), "casUrl": f"local://{hub.xet}"}
                headers = {
                    "X_Xet_Access_Token": token["accessToken"],
                    "X_Xet_Token_Expiration": str(token["exp"]),
                    "X_Xet_Cas_Url": token["casUrl"],
                }
                return self.answer(token, **headers)
            info = re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/revision/(.+))?", path)
            file = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if not (info or file):
                return self.answer(status=404)
            name = info[1] if info else file[1] if file[1].count("/") == 2 else f"models/{file[1]}"
            repo = hub.repos.get(name)
            if repo is None:
                return self.answer(status=404, X_Error_Code="RepoNotFound")
            revision = (info or file)[2] or "main"
            files = repo.at(revision)
            if files is None:
                return self.answer(status=404, X_Error_Code="RevisionNotFound")
            sha = repo.sha() if revision == "main" else revision
            if info:
                return self.answer(
                    {
                        "id": name.partition("/")[2],
                        "sha": sha,
                        "private": repo.private,
                        "siblings": [{"rfilename": path} for path in files],
                        "tags": [],
                        "downloads": 0,
                        "likes": 0,
                    }
                )
            if file[3] not in files:
                return self.answer(status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
            content = files[file[3]]
            etag = hashlib.sha256(content).hexdigest()
            if not is_lfs(file[3], len(content)):
                return self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=sha)
            hub.objects[etag] = content
            xet = {}
            if etag in hub.xet_hashes:
                route = f"{hub.url}/api/{name}/xet-read-token/{sha}"
                xet = {"X_Xet_Hash": hub.xet_hashes[etag], "X_Xet_Refresh_Route": route}
            return self.answer(
                status=302,
                **xet,
                Location=f"{hub.storage}/{etag}",
                X_Linked_Etag=f'"{etag}"',
                X_Linked_Size=str(len(content)),
                X_Repo_Commit=sha,
            )

        do_HEAD = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        hub.storage = f"http://localhost:{server.server_port}/storage"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
