"""A stand-in of the Hugging Face hub on this machine: repositories in memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


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
        repos: By "datasets/ORG/NAME" or "models/ORG/NAME".
        requests: Methods and paths.
        status: The answer to everything, if not None.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    status: int | None = None


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

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hub.requests.append(f"POST {self.path}")
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
            match = re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)/(\w+)/main", self.path)
            assert match, self.path
            repo = hub.repos[match[1]]
            if match[2] == "preupload":
                files = [file["path"] for file in json.loads(body)["files"]]
                mode = {"uploadMode": "regular", "shouldIgnore": False}
                return self.answer({"files": [{"path": path, **mode} for path in files]})
            repo.commits.append(dict(repo.files))
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    repo.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del repo.files[value["path"]]
            address = f"{hub.url}/{match[1].removeprefix('models/')}/commit/{repo.sha()}"
            return self.answer({"commitUrl": address, "commitOid": repo.sha()})

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.requests.append(f"{self.command} {path}")
            if hub.status:
                return self.answer({"error": "no"}, status=hub.status)
            info = re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/revision/(.+))?", path)
            file = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            assert info or file, path
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
            return self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=sha)

        do_HEAD = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
