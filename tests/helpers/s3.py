"""An S3 API on this machine: the server of moto. It keeps its objects in memory."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.helpers import isolated

MOTO = "moto[server]==5.2.5"
BUCKET = "leukotree"


def require() -> Path:
    """The program of the server. Skips the test where it cannot be installed."""
    return isolated.require(MOTO, "moto_server")


class S3:
    """A running server with one bucket, as a context."""

    def __init__(self, program: Path, place: Path) -> None:
        words = [str(program), "-H", "127.0.0.1", "-p", "{port}"]
        self._service = isolated.Service(words, place / "s3.log")
        self.port = self._service.port
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> S3:
        self._service.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._service.stop()

    def fetched(self, folder: str) -> Counter[str]:
        """Name of a shard of a folder -> how often it was sent."""
        asked = rf'GET \S*/{folder}/(fold\d+-\d+\.tar)\S* HTTP[^"]*" 20[06]'
        return Counter(re.findall(asked, self._service.log.read_text()))
