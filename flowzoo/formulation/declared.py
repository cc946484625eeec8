"""The parts of formulations that this package has, by what their classes declare (`part`); without torch.

A class is a part where it has a word of its own. It is known by its name, wherever it is kept.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from flowzoo.formulation import part
from flowzoo.formulation.part import Range
from flowzoo.signatures import classes_of, members_of, signature_of

Config = Mapping[str, Any]
_MODULE = "flowzoo.formulation."


@dataclass(frozen=True)
class Declared:
    """A class of this package, and what it declares; see `part.Part` and the bases of the five kinds.

    Parameters with one of the `defaults`, those of the constructor, may be left out, and are, in names too, where they
    have it.
    """

    target: str
    word: str
    place: str
    ranges: Mapping[str, Range]
    defaults: Mapping[str, float | None]
    usual: Mapping[str, float | str]
    rounded: Mapping[str, tuple[float, ...]]
    equals: Callable[..., tuple[Any, ...] | None] | None = None
    order: Callable[..., float | None] | None = None
    ends: tuple[tuple[float, float], ...] | None = None
    fixed_law: bool = False
    euler_t: bool = True
    uniform_t: bool = True

    @property
    def cls(self) -> str:
        return self.target.rpartition(".")[2]

    @property
    def named(self) -> dict[str, float | str | None]:
        """The parameters that names tell by keyword, with the values at which they do not."""
        return {**self.defaults, **self.usual}

    def config(self, *values: float | str | None) -> dict[str, Any]:
        """With the parameters in order; those that have a default may be left out at the end."""
        missing = list(self.ranges)[len(values) :]
        given = [*values, *(self.defaults[key] for key in missing)]
        full = dict(zip(self.ranges, given, strict=True))
        told = {key: value for key, value in full.items() if key not in self.defaults or value != self.defaults[key]}
        return {"_target_": self.target, **told}

    def check(self, key: str, value: Any) -> None:
        """Raise ValueError for a value that a config may not hold."""
        limits = self.ranges[key]
        if not (value is None and self.defaults.get(key, 0) is None) and (limits.word is None or value != limits.word):
            limits.check(f"{self.place}.{key}", value)


def declared(module: str) -> dict[str, Declared]:
    """The parts of a module of this package, by the names of their classes, in order.

    Raises ValueError where a declaration uses more than `part` offers.
    """
    found = {}
    for cls in classes_of(module):
        members = members_of(f"{module}.{cls}")
        one = _declared(f"{module}.{cls}", members) if "word" in members else None
        if one is not None:
            found[cls] = one
    return found


def _declared(target: str, members: Mapping[str, ast.expr | ast.FunctionDef]) -> Declared | None:
    told: dict[str, Any] = {}
    for name in Declared.__dataclass_fields__.keys() & members.keys() - {"target", "defaults"}:
        try:
            told[name] = _value(members[name])
        except NameError as error:
            raise ValueError(f"{target}.{name}: {error}; allowed is what {part.__name__} has") from None
    if told["word"] is None:
        return None
    parameters = signature_of(target).parameters.values()
    defaults = {p.name: ast.literal_eval(p.default) for p in parameters if p.default is not p.empty}
    return Declared(target, defaults=defaults, **told)


def _value(member: ast.expr | ast.FunctionDef) -> Any:
    """What a declaration is where nothing is known but the module `part`."""
    known = dict(vars(part))
    if isinstance(member, ast.expr):
        return eval(compile(ast.Expression(member), part.__name__, "eval"), known)
    (function,) = ast.parse(ast.unparse(member)).body
    assert isinstance(function, ast.FunctionDef)
    function.decorator_list, function.returns = [], None  # annotations may name anything
    for argument in function.args.args:
        argument.annotation = None
    exec(compile(ast.Module([function], []), part.__name__, "exec"), known)
    return known[function.name]


# By the names of the classes.
SCHEDULES, TARGETS, SAMPLERS, LOSSES, WEIGHTINGS = KINDS = tuple(
    declared(_MODULE + module) for module in ("schedule", "target", "timestep", "loss", "weighting")
)


def target_of(config: Config) -> str:
    """The class that a part's config names. Raises ValueError where it names none."""
    try:
        return str(config["_target_"])
    except (KeyError, TypeError):
        raise ValueError(f"{config!r} names no class: it has no _target_") from None


def is_part(config: Any) -> TypeGuard[Config]:
    return isinstance(config, Mapping) and "_target_" in config


def own_class(target: str) -> str | None:
    """The name of a class of this package without its module; None for a class from outside."""
    return target.rpartition(".")[2] if target.startswith("flowzoo.") else None


def known(config: Config, kind: Mapping[str, Declared]) -> Declared | None:
    """What the class of a config declares; None for a class that is no part of this kind."""
    return kind.get(own_class(target_of(config)) or "")


def word_of(target: str) -> str:
    """What stands for a class in the identity of a run: the word of a part of ours, else the name of our class.

    A class from outside is told by its whole path.
    """
    cls = own_class(target)
    if cls is None:
        return target
    return next((kind[cls].word for kind in KINDS if cls in kind), cls)


def resolved(config: Config, kind: Mapping[str, Declared] = SAMPLERS) -> Config:
    """The simplest part that equals this one: mode(0) is uniform.

    Parameters that have their default are left out. A part with parameters that `check` refuses stays as it is.
    """
    own = known(config, kind)
    if own is None:
        return config
    default = {key for key, value in own.defaults.items() if key in config and _same(config[key], value)}
    if default:
        config = {key: value for key, value in config.items() if key not in default}
    full = {**own.defaults, **config}
    if own.equals is None or not _numbers(full, own.ranges):
        return config
    simpler = own.equals(**{key: full[key] for key in own.ranges})
    if simpler is None:
        return config
    word, *values = simpler
    return resolved(next(one for one in kind.values() if one.word == word).config(*values), kind)


def simplest(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the simplest formulation that equals its own, under which both are one run.

    Loss and weighting are left out where they change nothing. Keys other than path, sampler and weighting, and what has
    no class, stay as they are.
    """
    out = dict(config)
    path, sampler, weighting = (out.get(key) for key in ("path", "sampler", "weighting"))
    if is_part(sampler):
        out["sampler"] = resolved(sampler)
    if isinstance(path, Mapping) and "loss" in path:
        loss = path["loss"]
        if loss is None or (is_part(loss) and changes_nothing(loss, path.get("target"))):
            out["path"] = {key: value for key, value in path.items() if key != "loss"}
        elif is_part(loss):
            out["path"] = {**path, "loss": resolved(loss, LOSSES)}
    if "weighting" in out and (weighting is None or (is_part(weighting) and word_of(target_of(weighting)) == "none")):
        del out["weighting"]
    return out


def changes_nothing(loss: Config, target: Any) -> bool:
    """A loss of the target itself: by its word, or measured in what the target is, where the weight is exactly 1."""
    own, clip = known(loss, LOSSES), loss.get("clip")
    if own is None:
        return False
    same = is_part(target) and (own_target := known(target, TARGETS)) is not None and own_target.word == own.word
    return own.word == "target" or (same and (clip is None or (_numbers(loss, ["clip"]) and clip >= 1)))


def _same(value: Any, default: float | None) -> bool:
    return type(value) is not bool and type(value) is not str and value == default


def _numbers(config: Config, keys: Iterable[str]) -> bool:
    return all(isinstance(config.get(key), int | float) and not isinstance(config[key], bool) for key in keys)
