"""The paper's names of formulations, both ways, and the check of their configs; without torch.

A config is what Hydra composes: path = {schedule: {_target_, ...}, target: {_target_, ...}, loss: {_target_, ...}},
sampler = {_target_, ...}, weighting = {_target_, ...}; loss and weighting may be left out.
Names: `rf/lognorm(0.00,1.00)`, `edm(-1.20,1.20)`, `v/cos`; else `target/schedule[/sampler]`: `x0/rf/mode(0.50)`.
Where the error is measured elsewhere than in the target, or is weighed, the name ends with it: `rf/loss_x0`,
`x0/rf/loss_eps(clip=100.00)`, `v/cos/min_snr(5.00)`. A shift is said at the law: `rf/uniform(shift=3.00)`.
A sigma_data other than 0.5 is said at the network's word: `edm(-1.20,1.20,sigma_data=data)`, `edm(sigma_data=data)/rf`.
A class from outside the package is named by its class and parameters.

A part of this package is known by the name of its class, wherever the class is kept, and a law that equals a simpler
one for some parameters says so in its `Part`: `resolved` gives the simpler one, under which both are one run.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeGuard

from flowzoo.formulation import limits

Config = Mapping[str, Any]


def _check_sigma_data(value: Any) -> None:
    if value != "data":  # the measured deviation, put in where the data are known
        limits.check_sigma_data(value)


def _check_clip(value: Any) -> None:
    if value is not None:
        limits.check_clip(value)


@dataclass(frozen=True)
class Part:
    """A part of a formulation of this package: its word in names, its class, its parameters with their checks.

    Parameters with one of the `defaults` may be left out, and are, in names too, where they have it.
    `equals` takes the parameters, all of them numbers, and returns the word and the parameters of the simpler part of
    the same kind that computes the same to the last bit; None where there is none.
    """

    word: str
    target: str
    parameters: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    defaults: Mapping[str, float | None] = field(default_factory=dict)
    equals: Callable[..., tuple[Any, ...] | None] | None = None
    # of schedules, as the classes say
    fixed_law: bool = False
    euler_t: bool = True
    uniform_t: bool = True

    @property
    def cls(self) -> str:
        return self.target.rpartition(".")[2]


_P = {"P_m": limits.check_P_m, "P_s": limits.check_P_s}
_MODULE = "flowzoo.formulation."
# By the names of the classes.
SCHEDULES = {
    part.cls: part
    for part in (
        Part("rf", _MODULE + "schedule.RF"),
        Part("cos", _MODULE + "schedule.Cosine"),
        Part("linear", _MODULE + "schedule.LDMLinear"),
        Part("ddpm_linear", _MODULE + "schedule.DDPMLinear"),
        Part("edm", _MODULE + "schedule.EDM", _P, fixed_law=True, euler_t=False, uniform_t=False),
        Part("edm_rf", _MODULE + "schedule.EDMRF", fixed_law=True, euler_t=False),
        Part("edm_cos", _MODULE + "schedule.EDMCosine", fixed_law=True, euler_t=False),
    )
}
TARGETS = {
    part.cls: part
    for part in (
        Part("velocity", _MODULE + "target.Velocity"),
        Part("eps", _MODULE + "target.Eps"),
        Part("v", _MODULE + "target.V"),
        Part("x0", _MODULE + "target.X0"),
        Part("F", _MODULE + "target.F", {"sigma_data": _check_sigma_data}),
    )
}
_SHIFT, _UNSHIFTED = {"shift": limits.check_sampler_shift}, {"shift": 1.0}
_M_S = {"m": limits.check_lognorm_m, "s": limits.check_lognorm_s}
SAMPLERS = {
    part.cls: part
    for part in (
        Part("uniform", _MODULE + "timestep.Uniform", _SHIFT, _UNSHIFTED),
        Part(
            "lognorm",
            _MODULE + "timestep.LogitNormal",
            _M_S | _SHIFT,
            _UNSHIFTED,
            equals=lambda m, s, shift: ("lognorm", m + math.log(shift), s) if shift > 0 and shift != 1 else None,
        ),
        Part(
            "mode",
            _MODULE + "timestep.Mode",
            {"s": limits.check_mode_s} | _SHIFT,
            _UNSHIFTED,
            equals=lambda s, shift: ("uniform", shift) if s == 0 else None,
        ),
        Part("cosmap", _MODULE + "timestep.CosMap", _SHIFT, _UNSHIFTED),
    )
}
_CLIP, _UNCLIPPED = {"clip": _check_clip}, {"clip": None}
LOSSES = {
    part.cls: part
    for part in (
        Part("target", _MODULE + "loss.OnTarget"),
        Part("x0", _MODULE + "loss.OnX0", _CLIP, _UNCLIPPED),
        Part("eps", _MODULE + "loss.OnEps", _CLIP, _UNCLIPPED),
        Part("velocity", _MODULE + "loss.OnVelocity", _CLIP, _UNCLIPPED),
    )
}
WEIGHTINGS = {
    part.cls: part
    for part in (
        Part("none", _MODULE + "weighting.Plain"),
        Part("min_snr", _MODULE + "weighting.MinSNR", {"gamma": limits.check_gamma}),
        Part("soft_min_snr", _MODULE + "weighting.SoftMinSNR", {"gamma": limits.check_gamma}),
    )
}
_KINDS = (SCHEDULES, TARGETS, SAMPLERS, LOSSES, WEIGHTINGS)
MODE_S = tuple(-1 + 2.75 * i / 6 for i in range(7))  # paper sec. 5.1.1; its printed values are rounded
_ROUNDED = {f"{s:.2f}": s for s in MODE_S}


def number(value: float) -> str:
    """Two decimals, or as many digits as the value needs."""
    short = f"{value + 0.0:.2f}"  # + 0.0: one name for 0 and -0
    return short if float(short) == value else repr(float(value))


def _mode_number(s: float) -> str:
    """The paper's rounded values keep their two decimals, so 0.83 itself is 0.830."""
    if s in MODE_S:
        return f"{s:.2f}"
    return f"{s:.3f}" if number(s) in _ROUNDED else number(s)


def _target(part: Config) -> str:
    try:
        return str(part["_target_"])
    except (KeyError, TypeError):
        raise ValueError(f"{part!r} names no class: it has no _target_") from None


def own_class(target: str) -> str | None:
    """The name of a class of this package without its module; None for a class from outside."""
    return target.rpartition(".")[2] if target.startswith("flowzoo.") else None


def word_of(target: str) -> str:
    """What stands for a class in the identity of a run: the word of a part of ours, else the name of our class.

    A class from outside is told by its whole path.
    """
    cls = own_class(target)
    if cls is None:
        return target
    return next((known[cls].word for known in _KINDS if cls in known), cls)


def resolved(part: Config, known: Mapping[str, Part] | None = None) -> Config:
    """The simplest part that equals this one, by default among the samplers: mode(0) is uniform.

    Parameters that have their default are left out. A part with parameters that `check` refuses stays as it is.
    """
    known = SAMPLERS if known is None else known
    own = _known(part, known)
    if own is None:
        return part
    default = {key for key, value in own.defaults.items() if key in part and _same(part[key], value)}
    if default:
        part = {key: value for key, value in part.items() if key not in default}
    full = {**own.defaults, **part}
    if own.equals is None or not _numbers(full, own.parameters):
        return part
    simpler = own.equals(**{key: full[key] for key in own.parameters})
    return part if simpler is None else resolved(_config(known, *simpler), known)


def simplest(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the simplest formulation that equals its own, under which both are one run.

    Loss and weighting are left out where they change nothing. Keys other than path, sampler and weighting, and what has
    no class, stay as they are.
    """
    out = dict(config)
    path, sampler, weighting = (out.get(key) for key in ("path", "sampler", "weighting"))
    if _is_part(sampler):
        out["sampler"] = resolved(sampler)
    if isinstance(path, Mapping) and "loss" in path:
        loss = path["loss"]
        if loss is None or (_is_part(loss) and _changes_nothing(loss, path.get("target"))):
            out["path"] = {key: value for key, value in path.items() if key != "loss"}
        elif _is_part(loss):
            out["path"] = {**path, "loss": resolved(loss, LOSSES)}
    if "weighting" in out and (weighting is None or (_is_part(weighting) and word_of(_target(weighting)) == "none")):
        del out["weighting"]
    return out


def _is_part(part: Any) -> TypeGuard[Config]:
    return isinstance(part, Mapping) and "_target_" in part


def _changes_nothing(loss: Config, target: Any) -> bool:
    """A loss of the target itself: by its word, or measured in what the target is, where the weight is exactly 1."""
    own, clip = _known(loss, LOSSES), loss.get("clip")
    if own is None:
        return False
    same = _is_part(target) and (own_target := _known(target, TARGETS)) is not None and own_target.word == own.word
    return own.word == "target" or (same and (clip is None or (_numbers(loss, ["clip"]) and clip >= 1)))


def _same(value: Any, default: float | None) -> bool:
    return type(value) is not bool and type(value) is not str and value == default


def _known(part: Config, known: Mapping[str, Part]) -> Part | None:
    return known.get(own_class(_target(part)) or "")


def _numbers(part: Config, keys: Iterable[str]) -> bool:
    return all(isinstance(part.get(key), int | float) and not isinstance(part[key], bool) for key in keys)


def _words(part: Config, known: Mapping[str, Part]) -> tuple[str, list[str]]:
    """The word of a part and its arguments as printed."""
    values = {key: value for key, value in part.items() if not key.startswith("_")}
    own = _known(part, known)
    if own is None:
        shown = {
            key: number(v) if isinstance(v, int | float) and not isinstance(v, bool) else str(v)
            for key, v in values.items()
        }
        return _target(part).rpartition(".")[2], [f"{key}={value}" for key, value in sorted(shown.items())]
    word, values = own.word, {**own.defaults, **values}
    if word == "F":
        sd = values["sigma_data"]
        return word, [] if sd == 0.5 else [f"sigma_data={sd if isinstance(sd, str) else number(sd)}"]
    printed = _mode_number if word == "mode" else number
    own_values = [printed(values[key]) for key in own.parameters if key not in own.defaults]
    return word, own_values + [
        f"{key}={number(values[key])}" for key, default in own.defaults.items() if values[key] != default
    ]


def _call(word: str, arguments: list[str]) -> str:
    return f"{word}({','.join(arguments)})" if arguments else word


def variant_name(path: Config, sampler: Config, weighting: Config | None = None) -> str:
    """The printed name of a formulation's config, one to one; `check` says whether there is such a formulation."""
    simple = simplest({"path": path, "sampler": sampler, "weighting": weighting})
    path, sampler = simple["path"], simple["sampler"]
    schedule, target = _words(path["schedule"], SCHEDULES), _words(path["target"], TARGETS)
    known = _known(path["schedule"], SCHEDULES)
    own = known and _known(path["target"], TARGETS)
    if own and (target[0], schedule[0]) == ("velocity", "rf"):
        parts = ["rf"]
    elif own and target[0] == "F" and schedule[0] == "edm":
        parts = [_call("edm", schedule[1] + target[1])]
    elif own and target[0] == "F" and known and known.fixed_law:
        parts = [_call("edm", target[1]), schedule[0].removeprefix("edm_")]
    else:
        parts = [_call(*target), _call(*schedule)]
    law = _words(sampler, SAMPLERS)
    if _known(sampler, SAMPLERS) is None or law != ("uniform", []):
        parts.append(_call(*law))
    if "loss" in path:
        parts.append(_call(*_words(path["loss"], LOSSES)))
        parts[-1] = f"loss_{parts[-1]}"
    if "weighting" in simple:
        parts.append(_call(*_words(simple["weighting"], WEIGHTINGS)))
    return "/".join(parts)


def file_name(name: str) -> str:
    """`rf/lognorm(0.00,1.00)` -> `rf_lognorm_0.00_1.00`; one to one for this package's parts, and idempotent."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name.replace("sigma_data=", "sd-").replace("=", "-")).strip("_")


def family(name: str) -> str:
    """A printed name without its numbers: rf/lognorm, rf/mode, rf, edm, eps/linear, ..."""
    return re.sub(r"\([^)]*\)", "", name)


def _config(parts: Mapping[str, Part], word: str, *values: float | str | None) -> dict[str, Any]:
    """Parameters that have a default may be left out at the end."""
    part = next(part for part in parts.values() if part.word == word)
    missing = list(part.parameters)[len(values) :]
    given = [*values, *(part.defaults[key] for key in missing)]
    full = dict(zip(part.parameters, given, strict=True))
    told = {key: value for key, value in full.items() if key not in part.defaults or value != part.defaults[key]}
    return {"_target_": part.target, **told}


_N = r"(-?\d[\d.]*(?:e[+-]?\d+)?)"
_SD = r"(?:_sd-(data|[\d.]+(?:e[+-]?\d+)?))?"
_GRAMMAR = re.compile(
    rf"(?:(?P<rf>rf)|(?P<edm>edm)(?:_(?P<P_m>{_N})_(?P<P_s>{_N}))?(?P<sd>{_SD})(?:_(?P<law>rf|cos))?"
    rf"|(?P<target>velocity|eps|v|x0|F)(?P<F_sd>{_SD})_(?:(?P<schedule>rf|cos|linear|ddpm_linear|edm_rf|edm_cos)"
    rf"|edm_(?P<free_P_m>{_N})_(?P<free_P_s>{_N})))"
    rf"(?:_lognorm_(?P<m>{_N})_(?P<s>{_N})|_mode_(?P<mode>{_N})(?:_shift-(?P<mode_shift>{_N}))?"
    rf"|_(?P<cosmap>cosmap)(?:_shift-(?P<cosmap_shift>{_N}))?|_uniform_shift-(?P<uniform_shift>{_N}))?"
    rf"(?:_loss_(?P<loss>x0|eps|velocity)(?:_clip-(?P<clip>{_N}))?)?"
    rf"(?:_(?P<weighting>min_snr|soft_min_snr)_(?P<gamma>{_N}))?"
)


def parse(name: str) -> dict[str, Any]:
    """A printed or file name of this package's parts -> {path, sampler} configs. Raises ValueError for any other."""
    found = _GRAMMAR.fullmatch(file_name(name))
    g = found.groupdict() if found else {}
    if not g or (g["edm"] and bool(g["P_m"]) == bool(g["law"])) or (g["F_sd"] and g["target"] != "F"):
        raise ValueError(f"{name!r} is not the name of a formulation; {_suggest(name)}")
    if g["rf"]:
        schedule, target = _config(SCHEDULES, "rf"), _config(TARGETS, "velocity")
    else:
        word = f"edm_{g['law']}" if g["law"] else g["schedule"]
        P = [float(g[key]) for key in ("P_m", "P_s", "free_P_m", "free_P_s") if g[key]]
        schedule = _config(SCHEDULES, word) if word else _config(SCHEDULES, "edm", *P)
        sd = (g["sd"] or g["F_sd"] or "_sd-0.5").removeprefix("_sd-")
        values = [sd if sd == "data" else float(sd)] if g["edm"] or g["target"] == "F" else []
        target = _config(TARGETS, g["target"] or "F", *values)
    shift = float(g["mode_shift"] or g["cosmap_shift"] or g["uniform_shift"] or 1)
    if g["m"]:
        sampler = _config(SAMPLERS, "lognorm", float(g["m"]), float(g["s"]))
    elif g["mode"]:
        sampler = _config(SAMPLERS, "mode", _ROUNDED.get(g["mode"], float(g["mode"])), shift)
    else:
        sampler = _config(SAMPLERS, "cosmap" if g["cosmap"] else "uniform", shift)
    path = {"schedule": schedule, "target": target}
    if g["loss"]:
        path["loss"] = _config(LOSSES, g["loss"], float(g["clip"]) if g["clip"] else None)
    config = {"path": path, "sampler": sampler}
    if g["weighting"]:
        config["weighting"] = _config(WEIGHTINGS, g["weighting"], float(g["gamma"]))
    check(**config)
    return {key: dict(value) for key, value in simplest(config).items()}


def _suggest(name: str) -> str:
    near = get_close_matches(name, TABLE, n=3)
    return "`python -m sweeps list sd3_61` prints the paper's 61" + (f"; near: {', '.join(near)}" if near else "")


def check(path: Config, sampler: Config, weighting: Config | None = None) -> None:
    """Raise ValueError for parameters unknown, missing or out of range, and for parts that do not fit together.

    Classes from outside the package pass: their constructors know their ranges.
    """
    places: tuple[tuple[str, Any, Mapping[str, Part]], ...] = (
        ("path.schedule", path["schedule"], SCHEDULES),
        ("path.target", path["target"], TARGETS),
        ("path.loss", path.get("loss"), LOSSES),
        ("sampler", sampler, SAMPLERS),
        ("weighting", weighting, WEIGHTINGS),
    )
    for place, part, known in places:
        if part is None and place in ("path.loss", "weighting"):
            continue
        cls, own = _target(part), _known(part, known)
        if own is None and own_class(cls) is None:
            continue
        if own is None or not _is_there(cls, own):
            allowed = ", ".join(part.target for part in known.values())
            raise ValueError(f"{place}._target_ = {cls} does not exist; allowed: {allowed}")
        parameters = own.parameters
        given = {key for key in part if not key.startswith("_")}
        if not set(parameters) - set(own.defaults) <= given <= set(parameters):
            allowed = ", ".join(parameters) or "none"
            raise ValueError(f"{place} has the parameters {', '.join(sorted(given)) or 'none'}; {cls} takes: {allowed}")
        for key, check_value in parameters.items():
            if key in part:
                if isinstance(part[key], list | Mapping):  # several numbers are a stack's, which configs never hold
                    raise ValueError(f"{place}.{key}={part[key]}: allowed is one number")
                check_value(part[key])
    simple = simplest({"path": path, "sampler": sampler, "weighting": weighting})
    schedule, target = _known(path["schedule"], SCHEDULES), _known(path["target"], TARGETS)
    law = _words(simple["sampler"], SAMPLERS)
    if schedule and schedule.fixed_law and (_known(simple["sampler"], SAMPLERS) is None or law != ("uniform", [])):
        raise ValueError(limits.no_other_law(schedule.word, _call(*law)))
    if "loss" in simple["path"]:
        loss, measured = simple["path"]["loss"], _known(simple["path"]["loss"], LOSSES)
        ours = [part for part in (schedule, target, measured) if part]
        if len(ours) == 3 and loss.get("clip") is None and limits.diverges(*(part.cls for part in ours)):
            raise ValueError(limits.no_clip(*(part.word for part in ours)))
        if "weighting" in simple:
            weight = _words(simple["weighting"], WEIGHTINGS)[0]
            raise ValueError(limits.no_weighting_of_a_loss(weight, measured.word if measured else _target(loss)))


def _is_there(target: str, own: Part) -> bool:
    """Whether a path leads to a class of ours; anything but the path that `Part` names is imported to find out."""
    if target == own.target:
        return True
    (module, _, cls), (home, _, _) = target.rpartition("."), own.target.rpartition(".")
    try:
        return getattr(import_module(module), cls) is getattr(import_module(home), cls)
    except (ImportError, AttributeError):
        return False


def check_solver(solver: Config, path: Config) -> None:
    """Raise ValueError if a solver's config {rule, grid, shift} is out of range or does not fit the path."""
    limits.check_shift(solver["shift"])
    schedule = _known(path["schedule"], SCHEDULES)
    if schedule and not schedule.euler_t and own_class(_target(solver["rule"])) == "EulerT":
        raise ValueError(limits.no_euler_t(schedule.word))
    if schedule and not schedule.uniform_t and own_class(_target(solver["grid"])) == "UniformT":
        raise ValueError(limits.no_uniform_t(schedule.word))


def _paper() -> list[str]:
    """The 61 in the order of paper sec. 5.1.1."""
    return [
        *("eps/linear", "v/linear", "eps/cos", "v/cos"),
        *("rf", *(f"rf/mode({_mode_number(s)})" for s in sorted((*MODE_S, 1.0)))),
        *(f"rf/lognorm({m:.2f},{s:.2f})" for m in (-1, -0.5, 0, 0.5, 1) for s in (0.2, 0.6, 1.0, 1.4, 1.8, 2.2)),
        "rf/cosmap",
        *(f"edm({P_m:.2f},{P_s:.2f})" for P_m in (-1.2, -0.6, 0, 0.6, 1.2) for P_s in (0.6, 1.2, 1.8)),
        *("edm/rf", "edm/cos"),
    ]


TABLE: dict[str, dict[str, Any]] = {name: parse(name) for name in _paper()}
