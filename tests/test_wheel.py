"""A wheel, built here and installed into an environment of its own, works from a folder that is not the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # also the first: both share a wheel

ROOT = Path(__file__).parents[1]
PACKAGES = ("flowzoo", "sweeps", "analysis")
TINY = [
    *("text=words", "data.source.image_size=16", "data.source.size=128", "backbone.depth=1", "backbone.width=32"),
    *("backbone.heads=1", "trainer.accelerator=cpu", "trainer.steps=2", "trainer.batch_size=4", "evaluation=quick"),
    *("trainer.val_samples=4", "evaluation.samples=66", "evaluation.reference=66", "evaluation.weights=[raw]"),
    "evaluation.settings=[{steps: 1, guidance: 1.0}]",
]


def command(words: Sequence[str | Path], cwd: Path) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the source, without a network, by the setuptools that is here."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in (*PACKAGES, "conf"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    command([*pip, "--wheel-dir", target, source], target)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel, and sees the packages that are installed here."""
    env = tmp_path_factory.mktemp("env")
    command([sys.executable, "-m", "venv", "--without-pip", env], env)
    python = env / "bin" / "python"
    own = Path(command([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], env).strip())
    # a path in a .pth file is searched last, and .pth files below it, such as an editable flowzoo's, are not read
    (own / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    command([*pip, wheel], env)
    assert {path.name for path in own.iterdir() if "dist-info" not in path.name} == {*PACKAGES, "packages.pth"}
    return env / "bin"


def test_it_holds_every_file_of_the_packages_and_nothing_at_the_top(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kinds = (".py", ".yaml", ".json", ".jsonl", ".safetensors", ".css", ".js")
    expected = {str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*") if p.suffix in kinds}
    expected |= {str(Path("flowzoo", p.relative_to(ROOT))) for p in (ROOT / "conf").rglob("*.yaml")}
    assert names == expected


def test_its_commands_work_elsewhere(installed: Path, tmp_path: Path) -> None:
    python, flowzoo = installed / "python", installed / "flowzoo"
    where = command([python, "-c", "import flowzoo, sweeps, analysis; print(flowzoo.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    command([flowzoo, "train", "variant=rf", *TINY], tmp_path)
    assert command([python, "-m", "sweeps", "list"], tmp_path) == command([flowzoo, "sweeps", "list"], tmp_path)
    assert len(command([flowzoo, "sweeps", "list", "sd3_61"], tmp_path).split()) == 61
    command([flowzoo, "sweeps", "plan", "demo"], tmp_path)
    ranked = command([python, "-m", "analysis.rank", "runs/solo"], tmp_path)
    assert ranked == command([flowzoo, "rank", "runs/solo"], tmp_path)
    assert ranked.splitlines()[1].split()[0] == "rf"
