"""The default file of a grid is named by what is in it."""

import re

from flowzoo.prompted import default_name

OPTIONS = {"weights": "ema", "steps": 50, "guidance": 5.0, "seed": 0, "checkpoint": "best"}
SOLVER = {"rule": {"_target_": "Heun"}, "shift": 1.0}


def name(prompts=("a red circle",), options=OPTIONS, solver=SOLVER) -> str:
    return default_name(options, prompts, solver)


def test_what_is_drawn_names_the_file():
    drawn = [
        name(),
        name(prompts=["a blue circle"]),
        name(prompts=["a red circle", "a red circle"]),
        *(
            name(options={**OPTIONS, key: value})
            for key, value in {"weights": "raw", "steps": 5, "guidance": 2.5, "seed": 1, "checkpoint": "last"}.items()
        ),
        name(solver={**SOLVER, "shift": 3.0}),
        name(solver={**SOLVER, "rule": {"_target_": "Recombine"}}),
    ]
    assert len(set(drawn)) == len(drawn)
    assert name(["a red circle"], solver=dict(reversed(SOLVER.items()))) == name()


def test_the_name_is_readable():
    assert re.fullmatch(r"prompted_ema_50_steps_guidance_5_seed_0_[0-9a-f]{8}\.png", name())
