"""The paper's names of formulations, both ways, and its table of 61; without torch.

A config is what Hydra composes: path = {schedule: {_target_, ...}, target: {_target_, ...}, loss: {_target_, ...}},
sampler = {_target_, ...}, weighting = {_target_, ...}; loss and weighting may be left out.
Names: `rf/lognorm(0.00,1.00)`, `edm(-1.20,1.20)`, `v/cos`; else `target/schedule[/sampler]`: `x0/rf/mode(0.50)`.
Where the error is measured elsewhere than in the target, or is weighed, the name ends with it: `rf/loss_x0`,
`x0/rf/loss_eps(clip=100.00)`, `v/cos/min_snr(5.00)`. A shift is said at the law: `rf/uniform(shift=3.00)`.
A sigma_data other than 0.5 is said at the network's word: `edm(-1.20,1.20,sigma_data=data)`, `edm(sigma_data=data)/rf`.
A class from outside the package is named by its class and parameters.

Words and parameters of a part of this package are those that its class declares (`part`, `declared`).
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from flowzoo.formulation.check import check
from flowzoo.formulation.declared import (
    LOSSES,
    SAMPLERS,
    SCHEDULES,
    TARGETS,
    WEIGHTINGS,
    Config,
    Declared,
    is_part,
    known,
    own_class,
    simplest,
    target_of,
)
from flowzoo.formulation.part import MODE_S
from flowzoo.formulation.spelling import call, file_name, pattern, read, words


def variant_name(path: Config, sampler: Config, weighting: Config | None = None) -> str:
    """The printed name of a formulation's config, one to one; `check` says whether there is such a formulation."""
    simple = simplest({"path": path, "sampler": sampler, "weighting": weighting})
    path, sampler = simple["path"], simple["sampler"]
    schedule, target = words(path["schedule"], SCHEDULES), words(path["target"], TARGETS)
    ours = known(path["schedule"], SCHEDULES) is not None and known(path["target"], TARGETS) is not None
    if ours and (target[0], schedule[0]) == ("velocity", "rf"):
        parts = ["rf"]
    elif ours and (target[0], schedule[0]) == ("F", "edm"):
        parts = [call("edm", schedule[1] + target[1])]
    elif ours and target[0] == "F" and schedule[0].startswith("edm_"):
        parts = [call("edm", target[1]), call(schedule[0].removeprefix("edm_"), schedule[1])]
    else:
        parts = [call(*target), call(*schedule)]
    law = words(sampler, SAMPLERS)
    if known(sampler, SAMPLERS) is None or law != ("uniform", []):
        parts.append(call(*law))
    if "loss" in path:
        parts.append("loss_" + call(*words(path["loss"], LOSSES)))
    if "weighting" in simple:
        parts.append(call(*words(simple["weighting"], WEIGHTINGS)))
    return "/".join(parts)


LONGEST = 64  # characters of a formulation in the name of a folder, where it has parts from outside


def folder_name(path: Config, sampler: Config, weighting: Config | None = None) -> str:
    """The formulation in the name of a folder, beside a hash: its file name, where that is not too long.

    Of parts from outside, which name all of their parameters, it is then the classes: `v_ShiftedCosine_LogitLaplace`.
    """
    whole = file_name(variant_name(path, sampler, weighting))
    bare = {key: _bare(part) for key, part in path.items()}
    short = file_name(variant_name(bare, _bare(sampler), weighting and _bare(weighting)))
    return whole if len(whole) <= LONGEST or short == whole else short[:LONGEST].rstrip("_")


def _bare(part: Any) -> Any:
    """A part from outside without its parameters; ours as it is."""
    outside = is_part(part) and own_class(target_of(part)) is None
    return {"_target_": target_of(part)} if outside else part


def family(name: str) -> str:
    """A printed name without its numbers: rf/lognorm, rf/mode, rf, edm, eps/linear, ..."""
    return re.sub(r"\([^)]*\)", "", name)


def _any(kind: Iterable[Declared], without: str = "") -> str:
    return "|".join(pattern(one).removeprefix(without) for one in kind)


_EDMS = [one for one in SCHEDULES.values() if one.word.startswith("edm_")]
_SD = pattern(TARGETS["F"]).removeprefix("F")
_GRAMMAR = re.compile(
    rf"(?:(?P<rf>rf)|(?P<edm>{pattern(SCHEDULES['EDM'])})(?P<F>{_SD})"
    rf"|edm(?P<law_F>{_SD})_(?P<law>{_any(_EDMS, 'edm_')})"
    rf"|(?P<target>{_any(TARGETS.values())})_(?P<schedule>{_any(SCHEDULES.values())}))"
    rf"(?:_(?P<sampler>{_any(SAMPLERS.values())}))?"
    rf"(?:_loss_(?P<loss>{_any(LOSSES.values())}))?"
    rf"(?:_(?P<weighting>{_any(WEIGHTINGS.values())}))?"
)
_UNSAID = {"sampler": "uniform", "loss": "target", "weighting": "none"}


def parse(name: str) -> dict[str, Any]:
    """A printed or file name of this package's parts -> {path, sampler} configs. Raises ValueError for any other."""
    found = _GRAMMAR.fullmatch(file_name(name))
    g = found.groupdict() if found else {}
    if not g or any(g[key] == word for key, word in _UNSAID.items()):
        raise ValueError(f"{name!r} is not the name of a formulation; {suggestion(name)}")
    if g["rf"]:
        schedule, target = "rf", "velocity"
    elif g["edm"]:
        schedule, target = g["edm"], f"F{g['F']}"
    elif g["law"]:
        schedule, target = f"edm_{g['law']}", f"F{g['law_F']}"
    else:
        schedule, target = g["schedule"], g["target"]
    path = {"schedule": read(schedule, SCHEDULES), "target": read(target, TARGETS)}
    if g["loss"]:
        path["loss"] = read(g["loss"], LOSSES)
    config = {"path": path, "sampler": read(g["sampler"] or "uniform", SAMPLERS)}
    if g["weighting"]:
        config["weighting"] = read(g["weighting"], WEIGHTINGS)
    check(**config)
    return {key: dict(value) for key, value in simplest(config).items()}


def suggestion(name: str) -> str:
    """What to say to one who typed another name."""
    near = get_close_matches(name, TABLE, n=3)
    return "`python -m sweeps list sd3_61` prints the paper's 61" + (f"; near: {', '.join(near)}" if near else "")


def _paper() -> list[str]:
    """The 61 in the order of paper sec. 5.1.1."""
    return [
        *("eps/linear", "v/linear", "eps/cos", "v/cos"),
        *("rf", *(f"rf/mode({s:.2f})" for s in sorted((*MODE_S, 1.0)))),
        *(f"rf/lognorm({m:.2f},{s:.2f})" for m in (-1, -0.5, 0, 0.5, 1) for s in (0.2, 0.6, 1.0, 1.4, 1.8, 2.2)),
        "rf/cosmap",
        *(f"edm({P_m:.2f},{P_s:.2f})" for P_m in (-1.2, -0.6, 0, 0.6, 1.2) for P_s in (0.6, 1.2, 1.8)),
        *("edm/rf", "edm/cos"),
    ]


TABLE: dict[str, dict[str, Any]] = {name: parse(name) for name in _paper()}
# What `variant=` and sweeps take by name: the paper's, and the law that needs no numbers.
VARIANTS: dict[str, dict[str, Any]] = {**TABLE, "rf/spectrum": parse("rf/spectrum")}
_KINDS = {family(name) for name in VARIANTS}


def of_a_kind(name: str) -> str | None:
    """The printed name of one of `VARIANTS`, or of one of their kinds with other numbers; None for any other text."""
    try:
        config = parse(name)
    except ValueError:
        return None
    printed = variant_name(**config)
    return printed if family(printed) in _KINDS else None
