"""Images and a manifest come from an address, within limits."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from leukotree.errors import InputError
from leukotree.inference import download, inputs

DRIPS = 400
"""Bytes of a slow answer, 20 a second."""
dripped: list[str] = []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a server on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "http://example.invalid/a.png")
                self.end_headers()
            elif self.path.startswith("/round"):
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
            elif self.path.startswith("/here"):
                self.send_response(302)
                self.send_header("Location", "/a.png")
                self.end_headers()
            elif self.path.startswith("/drips"):
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for _ in range(DRIPS):
                        self.wfile.write(b"x")
                        dripped.append(self.path)
                        time.sleep(0.05)
            else:
                super().do_GET()

    serving = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}", folder
    serving.shutdown()
    thread.join()
    serving.server_close()


def picture(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(path)
    return path.read_bytes()


def test_an_image_is_downloaded_and_keeps_its_address_as_its_name(server: tuple[str, Path]) -> None:
    address, folder = server
    content = picture(folder / "a b.png")
    with inputs.opened([f"{address}/a%20b.png"]) as table:
        assert table["image"].tolist() == [f"{address}/a%20b.png"]
        assert Path(table["path"][0]).read_bytes() == content
    assert not Path(table["path"][0]).exists()


def test_a_manifest_is_downloaded_with_the_images_below_it(server: tuple[str, Path]) -> None:
    address, folder = server
    contents = [picture(folder / "set" / name) for name in ("p 1/a.png", "b.png")]
    (folder / "set/my.csv").write_text("image,patient\np 1/a.png,p1\nb.png,\n")
    with inputs.opened([f"{address}/set/my.csv"]) as table:
        assert table[["image", "patient"]].to_numpy().tolist() == [["p 1/a.png", "p1"], ["b.png", ""]]
        assert [Path(path).read_bytes() for path in table["path"]] == contents


@pytest.mark.parametrize("image", ["../a.png", "/a.png", "http://example.org/a.png", "x/../../a.png"])
def test_an_image_elsewhere_is_refused_before_it_is_asked_for(image: str, server: tuple[str, Path]) -> None:
    address, folder = server
    (folder / "my.csv").write_text(f"image\n{image}\n")
    with pytest.raises(InputError, match="does not lie below"), inputs.opened([f"{address}/my.csv"]):
        pass


def test_sizes_and_times_are_limited(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = server
    picture(folder / "a.png")
    monkeypatch.setattr(download, "MOST_BYTES", 10)
    with pytest.raises(InputError, match="over 10 bytes"), inputs.opened([f"{address}/a.png"]):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(download, "SECONDS", -1)
    with pytest.raises(InputError, match="took over"), inputs.opened([f"{address}/a.png"]):
        pass


def test_a_server_that_drips_is_left_in_time(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SECONDS", 0.5)
    dripped.clear()
    with pytest.raises(InputError, match="took over"):
        download.image(f"{server[0]}/drips", server[1])
    assert len(dripped) < DRIPS, "it waited for the server's end"


def test_a_redirection_is_followed_and_checked_before_it_is_asked(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    content = picture(folder / "a.png")
    (folder / "got").mkdir()
    assert download.image(f"{address}/here", folder / "got").read_bytes() == content
    with pytest.raises(InputError, match="over 5 redirections"):
        download.image(f"{address}/round", folder / "got")
    with pytest.raises(InputError, match=r"leads to http://example\.invalid, which is not https"):
        download.image(f"{address}/moved.png", folder / "got")


def test_an_address_elsewhere_does_not_lead_to_this_machine(server: tuple[str, Path]) -> None:
    """Here listen services that trust whoever is on this machine."""

    class Moved(requests.Session):
        def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
            assert url == "https://example.org/a.png", "the second address was asked"
            answer = requests.Response()
            answer.status_code, answer.headers["location"] = 302, f"{server[0]}/a.png"
            answer.raw = io.BytesIO()
            return answer

    with pytest.raises(InputError, match="leads to this machine"):
        download._answer(Moved(), "https://example.org/a.png")


@pytest.mark.parametrize("word", ["https://[x/a.png", "https://[x/a.csv"])
def test_what_is_no_address_is_one_line(word: str) -> None:
    with pytest.raises(InputError, match="is no address"), inputs.opened([word]):
        pass


@pytest.mark.parametrize("name", ["none.png"])
def test_what_cannot_be_downloaded_is_one_line(name: str, server: tuple[str, Path]) -> None:
    address, _ = server
    with pytest.raises(InputError, match=f"{name}: cannot be downloaded") as caught:
        download.image(f"{address}/{name}", server[1])
    assert "\n" not in str(caught.value)


def test_only_https_is_asked_elsewhere() -> None:
    with pytest.raises(InputError, match="is not https"):
        download.image("http://example.org/a.png", Path())


def test_the_signature_of_an_address_is_in_no_table_and_no_message(server: tuple[str, Path]) -> None:
    address, folder = server
    picture(folder / "a.png")
    with inputs.opened([f"{address}/a.png?sig=secret"]) as table:
        assert table["image"].tolist() == [f"{address}/a.png"]
    with (
        pytest.raises(InputError, match=r"none\.png: cannot be downloaded") as caught,
        inputs.opened([f"{address}/none.png?sig=secret"]),
    ):
        pass
    assert "secret" not in str(caught.value)
