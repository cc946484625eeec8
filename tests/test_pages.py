"""The pages of docs/results say what their rows hold."""

import re
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
import pytest

from flowzoo.content import sha256_of
from sweeps.__main__ import main
from sweeps.definition import load
from sweeps.manifest import Manifest
from sweeps.plan import plan_of

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PROPER = ["autoencoder=kl", "trainer.steps=10000", "evaluation.grids=[common,path]"]
KINDS = {"colour attribution": "attribution", "colours": "colors", "single object": "single", "two objects": "two"}


def table(page: Path, first: str, after: str = "") -> dict[str, list[str]]:
    """The cells of the table whose head begins with the cell `first`, the first one `after` some words, by row."""
    text = page.read_text()
    lines = text[text.index(after) :].split(f"\n| {first} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {cells[0]: cells[1:] for cells in rows}


@pytest.mark.parametrize(("data", "after"), [("shapes", "Shapes, 64 px"), ("cifar10", "CIFAR-10, 32 px (64")])
def test_fid_by_autoencoder_and_depth(data: str, after: str) -> None:
    rows = pd.read_csv(RESULTS / "autoencoders" / "rows.csv.gz")
    rows = rows[rows.dataset == data].set_index(["representation", "guidance", "backbone.depth"]).sort_index()
    told = table(RESULTS / "autoencoders" / "README.md", "autoencoder", after)
    assert set(told) == set(rows.index.get_level_values(0))
    for representation, cells in told.items():
        found = [rows.loc[representation, guidance, depth] for guidance in (1.0, 2.5) for depth in (4, 6, 8)]
        assert cells == [f"{row.fid:.2f} / {row.fid_decoded:.2f}" for row in found]


def test_reconstruction() -> None:
    rows = pd.read_csv(RESULTS / "autoencoders" / "reconstruction.csv")
    rows = rows[
        (rows["size"] == rows.trained_at.fillna(rows["size"])) & ~((rows["size"] == 32) & (rows.dataset == "shapes"))
    ]
    for name, cells in table(RESULTS / "autoencoders" / "README.md", "latents").items():
        own = rows[rows.representation == name].set_index("dataset")
        found = []
        for data in ("cifar10", "shapes"):
            row = own.loc[data]
            psnr = "exact" if pd.isna(row.psnr) else f"{row.psnr:.1f}"
            found += [f"{abs(row.rfid):.3f}", f"{row.ssim:.3f}", psnr]
        assert cells == found


def test_geneval_by_captions() -> None:
    rows = pd.read_csv(RESULTS / "captions" / "rows.csv.gz")
    for name, cells in table(RESULTS / "captions" / "README.md", "prompts").items():
        column = "geneval" if name == "overall" else f"geneval_{KINDS.get(name, name)}"
        for cell, (guidance, captions) in zip(
            cells[2:], [(g, c) for g in (2.5, 5.0) for c in ("terse", "mix")], strict=True
        ):
            own = (100 * rows[(rows.guidance == guidance) & (rows.captions == captions)][column]).tolist()
            assert len(own) == 3
            assert cell == f"{mean(own):.1f} ± {stdev(own):.1f}"


def test_weights_are_those_that_the_page_names() -> None:
    folder = RESULTS / "sd3-61" / "weights"
    named = dict(re.findall(r"^\| `(\S+)` \|.*\| ([0-9a-f]{64}) \|", (folder / "README.md").read_text(), re.M))
    assert named == {path.name: sha256_of(path) for path in folder.glob("*.safetensors")}


def test_the_sweeps_plan_the_runs_of_the_rows() -> None:
    planned = {run.id for run in plan_of(load("captions")).runs}
    assert planned == set(pd.read_csv(RESULTS / "captions" / "rows.csv.gz").run)
    rows = pd.read_csv(RESULTS / "autoencoders" / "rows.csv.gz")
    for words, name in (
        (["autoencoder=pixels"], "pixels"),
        (["autoencoder=pca", "autoencoder.channels=6"], "pca-f4-c6"),
    ):
        planned = {run.id for run in plan_of(load("autoencoders"), [*words, "data.source.image_size=64"]).runs}
        assert planned == set(rows[(rows.dataset == "shapes") & (rows.representation == name)].run)


@pytest.mark.parametrize(
    ("plan", "sweep", "words"),
    [
        ("rates", "study_rates", []),
        *((f"{name}_shapes", f"study_{name}", ["autoencoder=pixels,pca,kl"]) for name in ("map", "seeds", "laws")),
        *((f"proper_{name}_shapes", f"study_{name}", PROPER) for name in ("map", "seeds", "sigma_data")),
    ],
)
def test_the_plans_of_the_study_are_what_its_sweeps_plan(plan: str, sweep: str, words: list[str]) -> None:
    frozen = Manifest.read_file(RESULTS / "sd3-61" / "plans" / f"{plan}.jsonl.gz", Path("runs"))
    assert [run.id for run in frozen.runs] == [run.id for run in plan_of(load(sweep), words).runs]


@pytest.mark.parametrize(
    ("sweep", "words", "runs", "metric"),
    [
        ("autoencoders", ["autoencoder=kl", "backbone.depth=1,2"], 2, "fid_decoded"),
        ("captions", ["engine=stacked", "backbone.depth=1", "seeds=2", "metric.geneval.prompts=66"], 4, "geneval"),
    ],
)
def test_small_versions_run(sweep: str, words: list[str], runs: int, metric: str, tmp_path: Path) -> None:
    small = [
        *("trainer.steps=2", "trainer.batch_size=4", "trainer.val_samples=4", "data.source.size=200", "data.workers=0"),
        *("backbone.width=64", "evaluation.samples=66", "evaluation.reference=66", "evaluation.batch_size=66"),
        *("evaluation.settings=[{steps: 2, guidance: 2.5}]", f"runs={tmp_path}"),
    ]
    assert main(["run", sweep, *words, *small]) == 0
    rows = pd.concat(pd.read_csv(path) for path in (tmp_path / sweep).glob("*/results.csv"))
    assert len(rows) == runs
    assert rows[metric].notna().all()
    assert (rows.status == "done").all()
