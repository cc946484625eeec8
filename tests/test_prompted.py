"""The default file of a grid is named by what is in it."""

import re
from pathlib import Path

from omegaconf import OmegaConf

from flowzoo.prompted import default_path
from flowzoo.runs.store import Run

RUN = Run(Path("runs/solo/rf"))
OPTIONS = {"weights": "ema", "steps": 50, "guidance": 5.0, "seed": 0, "checkpoint": "best"}
SOLVER = {"rule": {"_target_": "Heun"}, "shift": 1.0}


def path(prompts=("a red circle",), options=OPTIONS, solver=SOLVER) -> Path:
    return default_path(RUN, OmegaConf.create(options), prompts, OmegaConf.create(solver))


def test_what_is_drawn_names_the_file():
    drawn = [
        path(),
        path(prompts=["a blue circle"]),
        path(prompts=["a red circle", "a red circle"]),
        *(
            path(options={**OPTIONS, key: value})
            for key, value in {"weights": "raw", "steps": 5, "guidance": 2.5, "seed": 1, "checkpoint": "last"}.items()
        ),
        path(solver={**SOLVER, "shift": 3.0}),
        path(solver={**SOLVER, "rule": {"_target_": "Recombine"}}),
    ]
    assert len(set(drawn)) == len(drawn)
    assert path(["a red circle"], solver=dict(reversed(SOLVER.items()))) == path()


def test_the_name_is_readable():
    assert path().parent == RUN.path / "samples"
    assert re.fullmatch(r"prompted_ema_50_steps_guidance_5_seed_0_[0-9a-f]{8}\.png", path().name)
