"""`| head -1` on commands that train: they save, say how they stand, and end with a code of their own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prepared import Prepared

from flowzoo.runs.lock import LOCK
from flowzoo.runs.store import Run

LONG = ["trainer.steps=1000000", "trainer.val_every=4", "trainer.checkpoint_every=50"]
# It says nothing before its validation at step 500, so each step is as small as can be.
CLIP = [
    *("data.workers=0", "data.source.image_size=16", "clip.source.size=64"),
    *("clip.recipe.steps=100000", "clip.recipe.batch_size=2"),
    *("clip.architecture.embed_dim=8", "clip.architecture.text_cfg.width=8", "clip.architecture.text_cfg.layers=1"),
    *("clip.architecture.vision_cfg.width=8", "clip.architecture.vision_cfg.layers=1"),
    "clip.architecture.vision_cfg.head_width=8",
]
MULTIRUN = ["flowzoo.train", "-m", *LONG, "path=rf,v_cos"]


Head = Callable[..., tuple[int, str]]


@pytest.fixture
def head(prepared: Prepared, tmp_path: Path) -> Head:
    """Reads the output of a command as far as the first line with `until`: its exit code, and its standard error."""

    def call(command: list[str], until: str = "") -> tuple[int, str]:
        process = prepared.start(["-m", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if until in line:
                break
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        return process.wait(1200), said

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "states"),
    [
        (MULTIRUN, ["preempted"]),
        ([*MULTIRUN, "trainer=stacked", "stack.processes=2"], ["preempted"] * 2),
    ],
    ids=["multirun", "stacks"],
)
def test_training_saves_and_stops(
    command: list[str], states: list[str], tmp_path: Path, tiny_words: list[str], head: Head
) -> None:
    code, said = head([*command, *tiny_words], "validation loss")
    runs = [Run(path.parent) for path in (tmp_path / "runs" / "solo").glob("*/status.json")]
    assert code == 130, said
    assert "Traceback" not in said
    found = [state for run in runs if (state := run.state) != "queued"]  # of those that had begun
    assert found
    assert found == states[: len(found)]
    assert not list(tmp_path.rglob(LOCK))


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [["-j", "2"], ["engine=stacked"]], ids=["-j 2", "stacked"])
def test_a_sweep_saves_and_stops(at_once: list[str], tmp_path: Path, tiny_words: list[str], head: Head) -> None:
    sweep = {"variants": ["rf", "v/cos"], "overrides": [*tiny_words, *LONG]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sweep))
    code, said = head(["sweeps", "run", "small.yaml", *at_once])
    assert code == 130, said
    assert "Traceback" not in said
    assert "the same command goes on" in said
    states = {Run(path).state for path in (tmp_path / "runs" / "small").iterdir() if (path / "status.json").exists()}
    assert states <= {"preempted", "queued"}
    assert not list(tmp_path.rglob(LOCK))


def test_a_search_stops(tmp_path: Path, head: Head) -> None:
    study = {
        "parameters": {"sampler.m": {"low": -1.5, "high": 1.5}, "sampler.s": {"low": 0.2, "high": 2.5}},
        "n_trials": 1000,
        "objective": {"_target_": "sweeps.search.toy.Toy", "seconds": 0.2},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(study))
    code, said = head(["sweeps", "search", "toy.yaml"])
    assert code == 130, said
    assert "Traceback" not in said
    assert not list((tmp_path / "runs" / "toy" / ".search").iterdir())


@pytest.mark.slow
def test_the_training_of_a_clip_stops(tmp_path: Path, head: Head) -> None:
    code, said = head(["flowzoo.train_clip", *CLIP])
    assert code == 130, said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.safetensors"))
