"""The code of jobs: one copy for each state of the code, whole or not at all, that Python takes before any
other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpc import status
from hpc.launching import arrays, run_states, snapshot
from leukotree.records import attempts, origin
from tests.helpers.checkouts import REPOSITORY, make_checkout, python_path

TAKE = "from pathlib import Path; from hpc.launching import snapshot; print(snapshot.take(Path('runs')))"


@pytest.fixture(autouse=True)
def _forget() -> None:
    snapshot._taken.cache_clear()


def python(code: str, cwd: Path, path: Path | str | None = None) -> str:
    """What a program prints that takes our packages from a path; without one, from here."""
    environment = os.environ | {"PYTHONPATH": str(path or python_path(REPOSITORY)), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_code_is_copied_once(tmp_path: Path) -> None:
    first = snapshot.take(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    snapshot._taken.cache_clear()
    assert snapshot.take(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert [path.name for path in (tmp_path / ".code").iterdir()] == [first.name]


def test_a_copy_has_what_jobs_need_and_no_more(tmp_path: Path) -> None:
    copy = snapshot.take(tmp_path)
    assert sorted(path.name for path in copy.iterdir()) == [
        "constraints.txt",
        "hpc",
        "leukotree",
        "origin.json",
        "slurm",
    ]
    for file in (
        "hpc/launching/batch_end.sh",
        "hpc/deepspeed/zero1.yaml",
        "leukotree/report/page.html",
        "slurm/site/default.yaml",
    ):
        assert (copy / file).is_file(), file
    assert not (copy / "slurm" / "container" / "image").exists(), "a pip.conf in it may hold a password"
    assert os.access(copy / "slurm" / "container" / "bin" / "squeue", os.X_OK)
    assert sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()) < 5e6


def test_a_copy_says_what_its_checkout_was(tmp_path: Path) -> None:
    copy = snapshot.take(tmp_path)
    assert json.loads((copy / "origin.json").read_text()) == origin.here()
    said = python(
        "import json; from leukotree.records import origin; print(json.dumps(origin.here()))", tmp_path, copy
    )
    assert json.loads(said) == origin.here()


@pytest.mark.slow("runs whole commands")
def test_python_takes_the_copy_and_not_what_lies_in_the_current_folder(tmp_path: Path) -> None:
    copy = snapshot.take(tmp_path)
    lines = [*snapshot.at_the_start(tmp_path), snapshot.IMPORT]
    program = (
        "from hpc.launching import snapshot; import leukotree; print(snapshot.__file__, leukotree.__file__)"
    )
    where = f'"{sys.executable}" -c "{program}"'
    module = f'"{sys.executable}" -m hpc.launching.snapshot'
    shell = "\n".join([*lines, where, module])
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")
    }
    done = subprocess.run(
        ["bash", "-euc", shell], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        f"{copy}/hpc/launching/snapshot.py",
        f"{copy}/leukotree/__init__.py",
        str(copy),
    ]


def test_what_a_job_submits_has_the_jobs_own_code(tmp_path: Path) -> None:
    copy = snapshot.take(tmp_path)
    assert python(TAKE, tmp_path, copy) == str(copy)
    assert not (tmp_path / "runs").exists()


def test_changed_code_is_another_copy_and_the_first_stays(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    path = python_path(checkout)
    first = Path(python(TAKE, tmp_path, path))
    (checkout / "src" / "leukotree" / "seeds.py").write_text("changed = True\n")
    second = Path(python(TAKE, tmp_path, path))
    assert first != second
    assert "changed" not in (first / "leukotree" / "seeds.py").read_text()
    assert "changed" in (second / "leukotree" / "seeds.py").read_text()
    codes = [json.loads((copy / "origin.json").read_text())["code"] for copy in (first, second)]
    assert codes[0] != codes[1]


def test_many_at_once_make_one_copy(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: python(TAKE, tmp_path), range(4)))
    assert len(found) == 1
    assert [str(path) for path in (tmp_path / "runs" / ".code").iterdir()] == list(found)


@pytest.mark.parametrize("damage", ["removed", "changed", "origin"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, damage: str) -> None:
    copy = snapshot.take(tmp_path)
    file = copy / ("origin.json" if damage == "origin" else "leukotree/seeds.py")
    content = file.read_bytes()
    file.write_text("x = 1\n") if damage == "changed" else file.unlink()
    snapshot._taken.cache_clear()
    assert snapshot.take(tmp_path) == copy
    assert file.read_bytes() == content
    assert [path.name for path in (tmp_path / ".code").iterdir()] == [copy.name]


def test_code_that_was_committed_since_is_no_longer_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(commit: str, dirty: bool) -> tuple[str, bool]:
        snapshot._taken.cache_clear()
        monkeypatch.setattr(
            origin, "here", lambda: {"commit": commit, "dirty": dirty, "version": None, "code": "c"}
        )
        said = json.loads((snapshot.take(tmp_path) / "origin.json").read_text())
        return said["commit"], said["dirty"]

    assert take("a", True) == ("a", True)
    assert take("b", False) == ("b", False)
    assert take("c", True) == ("b", False)
    assert take("d", False) == ("b", False)


def test_a_job_whose_code_was_removed_says_so_and_runs(tmp_path: Path) -> None:
    lines = snapshot.at_the_start(tmp_path)
    copy = snapshot.take(tmp_path)
    copy.rename(tmp_path / "elsewhere")
    done = subprocess.run(
        ["bash", "-euc", "\n".join([*lines, "echo $LEUKOTREE_CODE"])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(origin.root())
    removed = "the code that this job was submitted with was removed; it runs the code of today"
    assert done.stderr == f"leukotree: {copy}: {removed}\n"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    environment = os.environ | {"PYTHONPATH": python_path(REPOSITORY)}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs").write_text("a file")
    done = subprocess.run(
        [sys.executable, "-m", "hpc.launching.snapshot"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "results/runs/.code: the code for the jobs cannot be copied there" in done.stderr


def test_a_batch_script_has_the_code_after_what_the_site_sets_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays.scheduler, "sbatch", lambda script: "12")
    monkeypatch.setattr(arrays.scheduler, "cluster", lambda: None)
    root = tmp_path / "runs" / "study"
    runner = arrays.slurm_executor(
        root / "jobs", {"slurm_setup": ["module load python"], "timeout_min": 5, "name": "study"}
    )

    class Nothing:
        run_names = ()

        def __call__(self) -> None: ...

    arrays.submit_array(runner, root, [Nothing()])
    lines = (root / "jobs" / "12_submission.sh").read_text().splitlines()
    order = [f"export LEUKOTREE_CODE={snapshot.take(root.parent)}", "module load python", snapshot.IMPORT]
    assert [line for line in lines if line in order] == order


def test_status_names_what_went_on_with_other_code(tmp_path: Path) -> None:
    for name, codes in (("flat-0123456789ab", ["commit a", "commit b"]), ("flat-ba9876543210", None)):
        folder = tmp_path / "study" / name
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(
            json.dumps({"state": "done"} | ({"codes": codes} if codes else {}))
        )
    search = tmp_path / "study" / "search"
    search.mkdir()
    rows = [{"commit": letter * 40, "code": letter, "at": at} for letter, at in (("c", 0), ("d", 7))]
    (search / attempts.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    look = run_states.look(tmp_path / "study")
    text = status.table(tmp_path / "study", look)
    assert "warning: study: flat-0123456789ab: continued on other code: commit a, then commit b" in text
    search = "warning: study: the search was continued on other code"
    assert f"{search}: commit cccccccccccc, then commit dddddddddddd" in text
    assert text.count("warning:") == 2
    codes = {
        row["run_name"]: row["codes"]
        for row in json.loads(status.as_json(tmp_path / "study", look))
        if "run_name" in row
    }
    assert codes == {"flat-0123456789ab": ["commit a", "commit b"], "flat-ba9876543210": []}
