"""What the README says: its commands run or are at least accepted as written, its tables and links are true."""

import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hydra.types import RunMode
from PIL import Image
from torch import Tensor

import analysis.report
from flowzoo.content import SHIPPED
from flowzoo.formulation import part
from flowzoo.formulation.timestep import TimestepSampler
from flowzoo.runs.config import check_jobs, config_loader, configs_of
from flowzoo.runs.hydras import arguments
from sweeps.definition import load
from sweeps.plan import plan_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "docs" / "extending.md").read_text()


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in fenced(README, "bash") for line in block.splitlines()]

# Small enough for a test, appended to what the README says. The network and the data stay those of the command.
TINY = [
    *("trainer.accelerator=cpu", "trainer.steps=2", "trainer.batch_size=4", "trainer.val_samples=4"),
    *("evaluation.samples=66", "evaluation.reference=66", "evaluation.weights=[ema,init]", "evaluation.grid=4"),
    *("evaluation.settings=[{steps: 2, guidance: 1.0}]", "data.cache=none", "data.workers=0"),
]
PHOTOS = ["backbone.depth=1", "backbone.width=64", "data.source.val_fraction=0.5"]
TINY_CLIP = ["clip.recipe.steps=1", "clip.recipe.batch_size=4", "data.source.val_fraction=0.5", "data.workers=0"]
TINY_CLIP += ["clip.architecture.vision_cfg.layers=1", "clip.architecture.text_cfg.layers=1"]
TINY_KL = [
    "data.source.val_fraction=0.5",
    "trainer.steps=2",
    "trainer.batch_size=4",
    "network.widths=[8,8,8]",
    "data.workers=0",
]
TINY_KL += ["trainer.val_samples=4", "quality.images=4"]

# How each command is tested: the first pattern that is found in it says so.
RUN, SHELL, ACCEPTED, DRY, NOT = "run", "shell state", "accepted as written", "make -n", "not tested"
HOW: list[tuple[str, str, list[str]]] = [
    (r"^make ", DRY, []),  # minutes, and it installs; what it calls is tested here and there
    (r"^source \.venv", NOT, []),  # tests run in the environment that they are started in
    (r"^(RUN=|export )", SHELL, []),
    (r"--cfg job", RUN, []),
    (r"train --config-dir", ACCEPTED, []),  # tests/test_outside.py trains with the examples
    (r"flowzoo\.train .*data=folder", RUN, TINY + PHOTOS),
    (r"flowzoo\.train ", RUN, [*TINY, "data.source.size=100"]),
    (r"flowzoo\.evaluate ", RUN, []),
    (r"flowzoo\.sample ", RUN, ["steps=2", "n=2"]),
    (r"train_clip .*(photos|emoji)", RUN, TINY_CLIP),
    (r"train_clip .*cifar10", ACCEPTED, []),  # minutes on a GPU
    (r"train_autoencoder ", RUN, TINY_KL),
    (r"reconstruct ", RUN, ["data.source.val_fraction=0.5", "images=70"]),
    (r"advise ", RUN, ["data.source.val_fraction=0.5"]),
    (r"sweeps list", RUN, []),
    (r"sweeps (plan|run|retry)", ACCEPTED, []),  # minutes to hours
    (r"analysis\.report runs/sd3_61", ACCEPTED, []),  # its runs take hours
    (r"analysis\.(rank|report|compare) runs/(tour|emoji)", RUN, []),
]


def how(command: str) -> tuple[str, list[str]]:
    return next((way, extra) for pattern, way, extra in HOW if re.search(pattern, command))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with what the README supposes: images of one's own, and the examples."""
    noise = np.random.RandomState(0)
    for name in ("photos", "cifar10-train", "cifar10-test"):
        for i in range(160 if name == "photos" else 2):
            path = tmp_path / name / ("cat", "dog")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        if name != "photos":
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_STORED) as archive:
                for path in sorted((tmp_path / name).rglob("*.png")):
                    archive.write(path, path.relative_to(tmp_path / name))
    with zipfile.ZipFile(tmp_path / "emoji.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(160):
            picture = io.BytesIO()
            Image.fromarray(noise.randint(0, 256, (8, 8, 4), dtype=np.uint8)).save(picture, "PNG")
            archive.writestr(f"noto/{i}.png", picture.getvalue())
            archive.writestr(f"noto/{i}.txt", f"emoji number {i}\n")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.syspath_prepend(tmp_path / "examples" / "add_your_own")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(commands: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each command with its arguments as bash makes them, after the shell state that comes before it."""
    state: list[str] = []
    for command in commands:
        if how(command)[0] == SHELL:
            state.append(command)
        script = "\n".join(["python() { printf '%s\\0' \"$@\"; }", *state, command])
        if command.startswith("python "):
            done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
            yield command, done.stdout.split("\0")[:-1]


def run(module: str, argv: list[str], monkeypatch) -> int:
    """python -m module argv, in this process: importing everything anew takes ten seconds a command."""
    monkeypatch.setattr(sys, "argv", [module, *argv])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def accept(module: str, argv: list[str]) -> None:
    """Raises, or exits, where the command would refuse its arguments."""
    if module == "sweeps":
        words = [word for word in argv[2:] if "=" in word]
        subprocess.run([sys.executable, "-m", "sweeps", *argv, "--help"], capture_output=True, check=True)
        plan_of(load(argv[1]), words)
    elif module == "analysis.report":
        analysis.report.parser().parse_args(argv)
    elif module == "flowzoo.train":
        args = arguments(argv)
        if not args.cfg:
            check_jobs(configs_of(args, "train"))
    elif module in ("flowzoo.train_clip", "flowzoo.train_autoencoder", "flowzoo.reconstruct", "flowzoo.advise"):
        with config_loader() as loader:
            loader.load_configuration(module.removeprefix("flowzoo."), argv, RunMode.RUN)


def test_no_command_is_forgotten():
    assert len(COMMANDS) > 20
    for command in COMMANDS:
        assert how(command)
    for pattern, *_ in HOW:
        assert any(how(command) == (way, extra) for command in COMMANDS for p, way, extra in HOW if p == pattern)


def test_commands_are_accepted_as_written(here):
    (here / "runs" / "tour" / "rf_lognorm_0.00_1.00-s0-00000000").mkdir(parents=True)
    for name in ("photos.safetensors", "kl_photos.safetensors", "emoji.safetensors", "clip_cifar10.safetensors"):
        (here / name).symlink_to(SHIPPED)
    for _, (_, module, *argv) in words(COMMANDS):
        accept(module, argv)


@pytest.mark.slow
def test_commands_run(here, monkeypatch, capfd):
    for command, (_, module, *argv) in words([c for c in COMMANDS if how(c)[0] in (RUN, SHELL)]):
        assert run(module, argv + how(command)[1], monkeypatch) == 0, command
        if command.startswith("python -m analysis.rank"):
            assert "edm(-1.20,1.20)" in capfd.readouterr().out.split("not ranked")[0]
    first = next(argv for command, (_, _, *argv) in words(COMMANDS) if "experiment=demo" in command)
    assert run("flowzoo.train", [*first, *TINY, "data.source.size=100"], monkeypatch) == 0
    assert "nothing to do" in capfd.readouterr().out
    tour = here / "runs" / "tour"
    assert (tour / "report" / "report.html").stat().st_size > 100_000
    assert len(list(tour.glob("*/samples/prompted_*.png"))) == 1
    assert {path.name.split("-s0-")[0] for path in tour.glob("*-s0-*")} == {
        *("rf_lognorm_0.00_1.00", "rf", "eps_linear", "edm_-1.20_1.20")
    }
    assert len(list((here / "runs" / "solo").glob("rf-s0-*/results.csv"))) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
def test_make_targets_exist():
    for command in (c for c in COMMANDS if how(c)[0] == DRY):
        done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr


def test_the_table_of_config_groups_is_complete():
    rows = re.findall(
        r"^\| `([\w/]+)` \| (.*) \|$", README.split("## Config groups")[1].split("\n## ")[0], re.MULTILINE
    )
    told = {group: set(re.findall(r"`(\w+)`\*?", options)) for group, options in rows if group != "variant"}
    conf = ROOT / "conf"
    # conf/clip belongs to train_clip alone
    folders = [p for p in conf.rglob("*") if p.is_dir() and list(p.glob("*.yaml")) and p.name != "clip"]
    assert told == {str(p.relative_to(conf)): {f.stem for f in p.glob("*.yaml")} for p in folders}
    with config_loader() as loader:
        whole = loader.load_configuration("train", [], RunMode.RUN)
    choices = whole.hydra.runtime.choices
    for group, options in rows:
        several = group in ("metric", "callbacks")  # lists, of which Hydra keeps no choice
        chosen = list(whole.get(group) or []) if several else [choices[group]] if choices.get(group) else []
        assert re.findall(r"`(\w+)`\*", options) == chosen


def test_the_file_guide_is_complete():
    guide = README.split("## Files")[1].split("\n## ")[0]
    told = re.findall(r"`([\w./]+)`", guide)
    assert [name for name in told if not (ROOT / name).exists()] == []
    have = {f"{p.name}/" for p in ROOT.iterdir() if p.is_dir() and list(p.rglob("*.py")) and p.name[0] not in "._"}
    have |= {f"flowzoo/{p.name}/" for p in (ROOT / "flowzoo").iterdir() if (p / "__init__.py").is_file()}
    assert have - {"flowzoo/", "runs/"} <= set(told)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if link.startswith("docs/results/") and not (ROOT / "docs" / "results").exists():
            pytest.skip("the reports of docs/results/ are not in this checkout")
        assert "://" in link or (path.parent / link).exists(), link


def test_python_without_hydra(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown, inside, *blocks = fenced(EXTENDING, "python")
    names = {"TimestepSampler": TimestepSampler, "Tensor": Tensor, "ClassVar": ClassVar, "Mapping": Mapping}
    exec(inside, vars(part) | names)
    assert shown in (ROOT / "examples" / "add_your_own" / "laplace.py").read_text()
    toy, batches, ranks = blocks
    exec(toy, {})
    nfe, low, high = re.findall(r"-?\d+(?:\.\d+)?", capsys.readouterr().out)
    assert nfe == "39"
    assert (float(low), float(high)) == (pytest.approx(-1, abs=0.2), pytest.approx(2, abs=0.2))
    made: dict = {}
    exec(batches, made)
    assert made["batch"].images.shape == (8, 3, 16, 16)
    assert made["batch"].text.tokens[0].shape == (8, 24, 64)
    exec(ranks, {})
    assert capsys.readouterr().out.split("\n")[:3] == ["eps/linear 1.0", "rf 1.0", "v/linear 2.0"]
