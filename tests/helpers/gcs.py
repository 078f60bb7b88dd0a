"""A Google Cloud Storage API on this machine: gcp-storage-emulator. It keeps its objects in memory."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.helpers import isolated

EMULATOR = "gcp-storage-emulator==2026.7.19"
BUCKET = "leukotree"


class GCS:
    """A running server with one bucket, as a context. Skips the test where it cannot be installed."""

    def __init__(self, place: Path) -> None:
        program = isolated.require(EMULATOR, "gcp-storage-emulator")
        words = ["start", "--host=127.0.0.1", "--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
        self._service = isolated.Service([str(program), *words], place / "gcs.log")
        self.variables = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{self._service.port}"}

    def __enter__(self) -> GCS:
        self._service.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._service.stop()

    def fetched(self) -> Counter[str]:
        """Name of a shard -> how often it was sent."""
        asked = r'GET \S*(fold\d+-\d+\.tar)\S*alt=media\S* HTTP[^"]*" 20[06]'
        return Counter(re.findall(asked, self._service.log.read_text()))
