"""The part of the Hugging Face hub's API that reading a data set or fetching a model needs, on this machine.

See https://huggingface.co/docs/hub/api; the shapes are those that `huggingface_hub.HfFileSystem` asks for.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0" * 40


class Hub:
    """A running hub with one data set and one model, both `me/set`, as a context. `folder`: their files."""

    def __init__(self, folder: Path) -> None:
        self._server = _Server(folder)
        self.variables = {"HF_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}"}

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def sent(self) -> Counter[str]:
        """Name of a file -> how often it was sent."""
        return Counter(self._server.sent)

    def fetched(self) -> Counter[str]:
        """Name of a shard -> how often it was sent."""
        return Counter({name: n for name, n in self._server.sent.items() if name.endswith(".tar")})


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.sent = folder, Counter[str]()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        """`paths-info`: what is known of some paths."""
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(asked)["paths"]
        else:
            paths = parse_qs(asked)["paths"]
        places = [self.server.folder / path for path in paths]
        self._json([self._facts(place) for place in places if place.exists()])

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if file := re.fullmatch(r"(?:/datasets)?/me/set/resolve/[^/]+/(.+)", path):
            self._file(self.server.folder / file[1], body)
        elif tree := re.fullmatch(r"/api/(?:datasets|models)/me/set/tree/[^/]+/?(.*)", path):
            place = self.server.folder / tree[1]
            if place.is_dir():
                self._json([self._facts(each) for each in sorted(place.iterdir())])
            else:
                self._missing("EntryNotFound")
        elif path in ("/api/datasets/me/set", "/api/datasets/me/set/revision/main"):
            self._json({"id": "me/set", "sha": COMMIT, "private": False, "siblings": [], "tags": []})
        else:
            self._missing("RepoNotFound")

    def _facts(self, place: Path) -> dict[str, Any]:
        path = str(place.relative_to(self.server.folder))
        if place.is_dir():
            return {"type": "directory", "path": path, "oid": COMMIT}
        digest = hashlib.sha1(place.read_bytes()).hexdigest()
        return {"type": "file", "path": path, "size": place.stat().st_size, "oid": digest}

    def _file(self, place: Path, body: bool) -> None:
        if not place.is_file():
            self._missing("EntryNotFound")
            return
        content = place.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, len(content)) if wanted and wanted[2] else len(content)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.server.sent[place.name] += 1
            self.wfile.write(content[begin:end])

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass
