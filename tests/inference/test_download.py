"""Images and a manifest come from an address, within limits."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leukotree.errors import InputError
from leukotree.inference import download, inputs


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


@pytest.mark.parametrize("name", ["none.png", "moved.png"])
def test_what_cannot_be_downloaded_is_one_line(name: str, server: tuple[str, Path]) -> None:
    address, _ = server
    with pytest.raises(InputError, match=f"{name}: cannot be downloaded") as caught:
        download.image(f"{address}/{name}", server[1])
    assert "\n" not in str(caught.value)


def test_only_https_is_asked_elsewhere() -> None:
    with pytest.raises(InputError, match="is not https"):
        download.image("http://example.org/a.png", Path())
