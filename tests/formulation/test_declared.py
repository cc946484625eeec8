"""What is read of a class's declaration is what the class says, and it is all that names, checks and configs need."""

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flowzoo.formulation import declared
from flowzoo.formulation.declared import KINDS, Declared
from flowzoo.formulation.part import Part

ROOT = Path(__file__).parents[2]
PARTS = [one for kind in KINDS for one in kind.values()]
MODULES = ("schedule", "target", "timestep", "loss", "weighting")


def imported(one: Declared) -> type[Part]:
    module, _, cls = one.target.rpartition(".")
    found: type[Part] = getattr(importlib.import_module(module), cls)
    return found


@pytest.mark.parametrize("one", PARTS, ids=lambda one: one.cls)
def test_what_is_read_is_what_the_class_says(one: Declared) -> None:
    cls = imported(one)
    for name in ("word", "place", "ranges", "usual", "rounded", "fixed_law", "euler_t", "uniform_t", "ends"):
        if hasattr(cls, name):
            assert getattr(one, name) == getattr(cls, name), name
    taken = inspect.signature(cls).parameters
    assert set(taken) == set(one.ranges)
    assert {key: p.default for key, p in taken.items() if p.default is not p.empty} == one.defaults
    for name, arguments in (("order", (2.0, -1.0, 0.5)), ("equals", [1.25] * len(one.ranges)), ("equals", (0.0, 3.0))):
        if hasattr(cls, name) and len(inspect.signature(getattr(cls, name)).parameters) == len(arguments):
            assert getattr(one, name)(*arguments) == getattr(cls, name)(*arguments)


def test_every_public_class_is_a_part_or_has_no_word() -> None:
    for module, kind in zip(MODULES, KINDS, strict=True):
        classes = vars(importlib.import_module(f"flowzoo.formulation.{module}")).values()
        parts = {c.__name__ for c in classes if isinstance(c, type) and issubclass(c, Part) and c.word}
        assert {name for name in parts if name[0] != "_" and name in kind} == set(kind)
        assert len({one.word for one in kind.values()}) == len(kind)
    assert len({one.place for one in PARTS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=MODULES)
def test_every_part_is_an_option_with_all_of_its_parameters(kind: dict[str, Declared]) -> None:
    (place,) = {one.place for one in kind.values()}
    options = [yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / place.replace(".", "/")).glob("*.yaml")]
    own = {option["_target_"]: set(option) - {"_target_"} for option in options if "_target_" in option}
    assert own == {one.target: set(one.ranges) for one in kind.values()}


def test_a_declaration_that_needs_more_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"word": declared.members_of("flowzoo.formulation.timestep.Mode")["word"]}
    more = declared.ast.parse("{'s': torch.inf}", mode="eval").body
    with pytest.raises(ValueError, match=r"Mode\.ranges: name 'torch' is not defined; allowed is what .*part has"):
        declared._declared("flowzoo.formulation.timestep.Mode", {**members, "ranges": more})


LAW = '''

class Kumaraswamy(Shiftable):
    """F(t) = 1 - (1 - t^a)^b; a, b > 0, else ValueError."""

    word = "kumaraswamy"
    ranges: ClassVar[Mapping[str, Range]] = {"a": POSITIVE, "b": POSITIVE, "shift": POSITIVE}

    def __init__(self, a: float | Tensor, b: float | Tensor, shift: float | Tensor = 1.0) -> None:
        self.check(a=a, b=b)
        self.a, self.b = a, b
        super().__init__(shift)

    def law(self, u: Tensor) -> Tensor:
        return (1 - (1 - u) ** (1 / self.b)) ** (1 / self.a)

    def law_density(self, t: Tensor) -> Tensor:
        return self.a * self.b * t ** (self.a - 1) * (1 - t**self.a) ** (self.b - 1)

    @staticmethod
    def equals(a: float, b: float, shift: float) -> tuple[str, float] | None:
        return ("uniform", shift) if a == b == 1 else None
'''
WEIGHT = '''

class Capped(_OfSNR):
    """min(1/sigma^2, gamma) alone."""

    word = "capped"

    def of_noise(self, sigma: Tensor) -> Tensor:
        return (1 / sigma.square()).clamp(max=self.gamma)
'''
USE = """
import sys
from flowzoo.formulation import names
from flowzoo.formulation.declared import word_of
from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.identity import run_folder, run_variant
with config_loader() as loader:
    words = ["sampler=kumaraswamy", "sampler.a=1,2", "sampler.shift=1,3", "weighting=none,capped"]
    jobs = compose_jobs(loader, "train", words, multirun=True)
    check_jobs(jobs)
    bad = compose_jobs(loader, "train", ["sampler=kumaraswamy", "sampler.b=0"], multirun=False)
told = [run_variant(cfg) for cfg in jobs]
for name in told:
    again = names.parse(names.file_name(name))
    assert names.variant_name(**again) == name == names.variant_name(**names.parse(name)), name
try:
    check_jobs(bad)
except ValueError as error:
    print(error)
assert "torch" not in sys.modules
print(*told, sep="\\n")
import torch
from hydra.utils import instantiate
law = instantiate(jobs[-1].sampler)
u = torch.linspace(0.01, 0.99, 9, dtype=torch.float64, requires_grad=True)
(slope,) = torch.autograd.grad(law.quantile(u).sum(), u)
torch.testing.assert_close(law.density(law.quantile(u)) * slope, torch.ones_like(u))
"""


def test_a_part_is_added_by_a_class_and_an_option(tmp_path: Path) -> None:
    """In a copy of the package; with a line of the README it is all that docs/extending.md asks for."""
    for name in ("flowzoo", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for module, code in (("timestep", LAW), ("weighting", WEIGHT)):
        with open(tmp_path / "flowzoo" / "formulation" / f"{module}.py", "a") as file:
            file.write(code)
    for option, content in (
        ("sampler/kumaraswamy", "_target_: flowzoo.formulation.timestep.Kumaraswamy\na: 1.0\nb: 1.0\nshift: 1.0\n"),
        ("weighting/capped", "_target_: flowzoo.formulation.weighting.Capped\ngamma: 5.0\n"),
    ):
        (tmp_path / "conf" / f"{option}.yaml").write_text(content)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    error, *names = done.stdout.splitlines()
    assert re.fullmatch(r"sampler\.b = 0(\.0)? is out of range; allowed: a finite number > 0", error)
    assert names == [
        *("rf", "rf/capped(5.00)", "rf/uniform(shift=3.00)", "rf/uniform(shift=3.00)/capped(5.00)"),
        *("rf/kumaraswamy(2.00,1.00)", "rf/kumaraswamy(2.00,1.00)/capped(5.00)"),
        *("rf/kumaraswamy(2.00,1.00,shift=3.00)", "rf/kumaraswamy(2.00,1.00,shift=3.00)/capped(5.00)"),
    ]
