"""docs/clusters.md says everything that a site can say, and its examples are sites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc.search import elastic
from hpc.slurm import exported
from hpc.slurm import site as sites
from hpc.slurm.site_model import Site, Small
from leukotree import yamlfile
from leukotree.config import parse

TEXT = (Path(__file__).parents[2] / "docs/clusters.md").read_text()
EXAMPLES = dict(
    re.findall(r"^### ([^\n]+)\n(?:(?!^###).)*?^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
)
ROWS = {
    row[0].strip("`"): row[1:]
    for row in (re.split(r" *\| *", line)[1:-1] for line in TEXT.splitlines() if line[:2] == "| ")
}


@pytest.mark.parametrize("key", Site.model_fields)
def test_each_key_stands_in_the_table_with_its_default(key: str) -> None:
    stated, default = ROWS[key][0].strip("`"), Site.model_fields[key].default
    if isinstance(default, int | str):
        assert stated == str(default)
    else:
        assert stated in ("", "any", "SLURM's", "by the image"), "the cluster's own, or nothing"


def test_the_table_names_no_other_key() -> None:
    table = TEXT.split("## Every key")[1].split("\n`small` may have")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(Site.model_fields)


def test_the_keys_of_small_jobs_are_named() -> None:
    sentence = TEXT.split("`small` may have ")[1].split(".")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(Small.model_fields)


def test_the_variables_that_are_honoured_are_named() -> None:
    section = TEXT.split("### What you export yourself")[1].split("###")[0]
    assert set(re.findall(r"`(SBATCH_\w+)`", section)) == set(exported.TAKEN_OVER)


def test_there_is_an_example_of_each_kind_of_site() -> None:
    assert set(EXAMPLES) == {
        "A plain cluster",
        "GPUs of several types",
        "An elastic search",
        "A container",
        "Nothing is exported",
        "No accounting",
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_site(name: str) -> None:
    site = parse(Site, yamlfile.parse(EXAMPLES[name]), name)
    assert sites.sbatch_options(site)


def test_the_example_with_types_asks_for_what_the_text_says() -> None:
    site = parse(Site, yamlfile.parse(EXAMPLES["GPUs of several types"]), "example")
    assert "--gpus-per-node=a100:4" in sites.sbatch_options(site)
    assert sites.gpus(site, 1) == {"gpus-per-node": "a100:1"}
    assert sites.sbatch_options(site, small=True) == [
        "--partition=cpu",
        "--account=p12345",
        "--time=60",
        "--nodes=1",
        "--ntasks=1",
    ]


def test_the_example_of_an_elastic_search_has_a_small_head_and_workers_of_one_gpu() -> None:
    site = parse(Site, yamlfile.parse(EXAMPLES["An elastic search"]), "example")
    assert site.elastic == 8
    head = sites.sbatch_options(site, small=True)
    assert head == [
        "--partition=cpu",
        "--account=p12345",
        "--time=2880",
        "--nodes=1",
        "--ntasks=1",
        "--mem=4G",
    ]
    assert {"--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=16", "--mem=120G"} < set(
        elastic.worker_options(site)
    )


def test_the_shipped_default_shows_each_key_with_its_default_and_names_none() -> None:
    text = (sites.SITES / "default.yaml").read_text()
    assert yamlfile.parse(text) is None
    shown = yamlfile.parse("\n".join(re.findall(r"^# (\w+: .*)$", text, re.MULTILINE)))
    assert set(shown) == set(Site.model_fields)
    assert (
        parse(Site, {key: value for key, value in shown.items() if value is not None}, "default.yaml")
        == Site()
    )
