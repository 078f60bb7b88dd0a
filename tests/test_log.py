"""The log: quiet on a terminal, INFO in a job, a file in the run's folder that the main rank alone writes."""

from __future__ import annotations

import io
import re
import weakref
from pathlib import Path

import pytest
import yaml

from leukotree import log, signals
from leukotree.records.runfolder import LOG
from tests.helpers.commandline import leukotree

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ rank 0 flat-[0-9a-f]{12} INFO: (.*)$")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in log.JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spec(shards: Path, tmp_path: Path) -> Path:
    content = {
        "variant": "flat",
        "data": {"shards": str(shards)},
        "backbone": {"name": "test_vit"},
        "optim": {"batch_size": 32, "epochs": 2, "lr": 1e-3},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "run.yaml"


def spoken(stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, file: Path, quiet: bool = False) -> str:
    monkeypatch.setattr("sys.stderr", stderr)
    logger = log.of_run("flat-0", file, quiet=quiet)
    logger.info("an epoch")
    logger.warning("a\nwarning")
    return stderr.getvalue()


@pytest.mark.parametrize("variable", log.JOB_VARIABLES)
def test_in_a_job_stderr_has_every_line(
    variable: str, no_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "7")
    monkeypatch.setenv("RANK", "3")
    info, warning = spoken(io.StringIO(), monkeypatch, tmp_path / LOG).splitlines()
    assert log.INFO_LINE.search(info)
    assert info.endswith(" rank 3 flat-0 INFO: an epoch")
    assert warning.endswith(" rank 3 flat-0 WARNING: a warning")
    assert not (tmp_path / LOG).exists(), "only the main rank writes the file"
    [only] = spoken(io.StringIO(), monkeypatch, tmp_path / LOG, quiet=True).splitlines()
    assert "WARNING" in only


def test_on_a_terminal_and_outside_of_a_job_there_are_warnings_only(
    no_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spoken(io.StringIO(), monkeypatch, tmp_path / LOG) == "leukotree: a warning\n"
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # as in an interactive job
    assert spoken(Terminal(), monkeypatch, tmp_path / LOG) == "leukotree: a warning\n"
    assert len((tmp_path / LOG).read_text().splitlines()) == 4


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "missing" / LOG, tmp_path / "folder", Path("/dev/full")):
        log.of_run("flat-0", file).info("lost")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for stderr in (None, closed):
        monkeypatch.setattr("sys.stderr", stderr)
        log.logger.warning("nobody listens")


def test_nothing_keeps_the_loggers_of_runs_that_have_ended(tmp_path: Path) -> None:
    logger = log.of_run("flat-0", tmp_path / LOG)
    kept = weakref.ref(logger.handlers[0]), weakref.ref(logger)
    logger.info("an epoch")
    del logger
    assert [reference() for reference in kept] == [None, None]


@pytest.mark.slow("trains")
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_file_of_a_run_has_its_start_epochs_checkpoints_and_end(
    ranks: int, no_job: None, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = leukotree("train", spec, "--ranks", ranks, cwd=spec.parent)
    assert (done.returncode, done.stderr) == (0, "")
    [file] = spec.parent.glob(f"results/runs/single/*/{LOG}")
    lines = [LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert all(lines), file.read_text()
    started, *messages = [line[1] for line in lines if line]
    assert re.fullmatch(rf"started with (commit|version) .*, {ranks} rank\(s\)", started)
    patterns = [
        r"begins: 0 of 2 epochs are done",
        r"checkpoint \d+ is saved",
        r"epoch 1 of 2: loss [\d.]+, images_per_s \S+, seconds \S+",
        r"epoch 2 of 2: loss [\d.]+, macro_f1 [\d.]+, images_per_s \S+, seconds \S+",
        r"ended: done, accuracy [\d.]+, macro_f1 [\d.]+",
    ]
    assert all(re.fullmatch(*pair) for pair in zip(patterns, messages, strict=True)), messages
    before = file.read_bytes()
    assert leukotree("train", spec, cwd=spec.parent).returncode == 0
    assert file.read_bytes() == before, "a run that is done is left alone"


@pytest.mark.slow("trains")
def test_a_request_to_stop_and_what_continues_are_in_the_file(
    no_job: None, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(signals, "requested", lambda: True)
        assert leukotree("train", spec, cwd=spec.parent).returncode == 75
    assert leukotree("train", spec, cwd=spec.parent).returncode == 0
    [file] = spec.parent.glob(f"results/runs/single/*/{LOG}")
    text = file.read_text()
    assert "INFO: asked to stop (" in text
    assert "INFO: ended: preempted: preempted: " in text
    assert re.search(r"INFO: continues from checkpoint \d+: 0 of 2 epochs are done", text)
    assert text.count("INFO: started with ") == 2
