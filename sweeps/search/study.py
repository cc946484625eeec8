"""A study file: which parameters are searched in which ranges, on which runs, and what judges a trial."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.samplers.nsgaii import UNDXCrossover
from optuna.trial import Trial

from flowzoo.runs.layout import DIRECTIONS, OBJECTIVES
from flowzoo.runs.parse import single
from sweeps.definition import content_of, names_in

HERE = Path(__file__).parents[1] / "studies"
TRAINING = {"_target_": "sweeps.search.training.Training"}
# What draws the parameters of a trial, from the seed of that trial. A crossover for numbers, and generations that a
# few hundred trials have several of.
SAMPLERS = {
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, constant_liar=True),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=20, crossover=UNDXCrossover()),
}


@dataclass(frozen=True)
class Parameter:
    """A number between `low` and `high`, uniform in itself or in its logarithm."""

    name: str
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
                raise ValueError(f"{self.name}: {end!r}: allowed is a finite number")
        if not self.low < self.high:
            raise ValueError(f"{self.name}: low={self.low}, high={self.high}: allowed is low < high")
        if self.log is True and self.low <= 0:
            raise ValueError(f"{self.name}: low={self.low} with log: allowed is a number greater than 0")
        if not isinstance(self.log, bool):
            raise ValueError(f"{self.name}: log={self.log!r}: allowed are true and false")

    def of(self, trial: Trial) -> float:
        """Its value in a trial, drawn when first asked for."""
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Study:
    """`overrides` are words of flowzoo.train's command line; `objective` is a class with its arguments, which judges.

    `objectives` are the scores of its verdicts by which trials compare, each with what is better, min or max.
    """

    name: str
    parameters: Mapping[str, Parameter]
    n_trials: int
    overrides: Sequence[str] = ()
    sampler: str = "tpe"
    seed: int = 0
    objective: Mapping[str, Any] = field(default_factory=lambda: dict(TRAINING))
    storage: str | None = None
    objectives: Mapping[str, str] = field(default_factory=lambda: dict(OBJECTIVES))

    def __post_init__(self) -> None:
        if isinstance(self.n_trials, bool) or not isinstance(self.n_trials, int) or self.n_trials < 1:
            raise ValueError(f"n_trials={self.n_trials}: allowed is an integer of at least 1")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed}: allowed is an integer of at least 0")
        if self.sampler not in list(SAMPLERS):
            raise ValueError(f"sampler={self.sampler}: allowed are {', '.join(SAMPLERS)}")
        told = self.objectives
        if not isinstance(told, dict) or len(told) < 2 or any(way not in list(DIRECTIONS) for way in told.values()):
            raise ValueError(f"objectives={told}: allowed are two or more metrics, each with min or max")

    def sampler_of(self, number: int) -> BaseSampler:
        """The sampler of one trial: its randomness is a function of the study's seed and the trial's number.

        So one worker draws the same trials whether it was interrupted or not, and several never draw alike.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna calls much of what it has experimental
            return SAMPLERS[self.sampler](_word(self.seed, number))

    def described(self) -> dict[str, Any]:
        """What a storage remembers and what must stay the same for its trials to belong together."""
        ranges = {p.name: [p.low, p.high, "log" if p.log else "linear"] for p in self.parameters.values()}
        about = {"sampler": self.sampler, "seed": self.seed, "parameters": ranges, "objective": dict(self.objective)}
        told = [f"{name}:{direction}" for name, direction in self.objectives.items()]
        # studies that were begun before there was a choice do not say it
        is_default = list(self.objectives.items()) == list(OBJECTIVES.items())
        return about if is_default else {**about, "objectives": told}


def _word(seed: int, number: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def study_names() -> list[str]:
    return names_in(HERE)


def load(study: str, words: Sequence[str] = ()) -> Study:
    """The study of that name, or of that YAML file; the words n_trials=, storage= and all for its runs win over it.

    Raises ValueError for an unknown study or key, and for a range that is none.
    """
    path, content = content_of("study", study, HERE, Study, ("parameters", "n_trials"))
    try:
        content["parameters"] = {name: _parameter(name, told) for name, told in _pairs(content, "parameters").items()}
        if "objective" in content:
            content["objective"] = TRAINING | _pairs(content, "objective")
        overrides = content.get("overrides", [])
        if not isinstance(overrides, list) or not all(isinstance(word, str) for word in overrides):
            raise ValueError(f"overrides={overrides}: allowed is a list of texts")
        made = Study(name=path.stem, **content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return _with(made, words)


def _with(study: Study, words: Sequence[str]) -> Study:
    for word in words:
        key, _, value = word.partition("=")
        if key == "n_trials":
            study = replace(study, n_trials=int(value) if value.isdigit() else value)  # type: ignore[arg-type]
        elif key == "storage":
            study = replace(study, storage=single([word])[0].value())  # type: ignore[arg-type]
        else:
            study = replace(study, overrides=[*study.overrides, word])
    return study


def _pairs(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(content[key], dict) or not content[key]:
        raise ValueError(f"{key}={content[key]}: allowed is a mapping")
    return content[key]


def _parameter(name: str, told: Any) -> Parameter:
    allowed = [f.name for f in fields(Parameter) if f.name != "name"]
    if not isinstance(told, dict) or not {"low", "high"} <= set(told) or not set(told) <= set(allowed):
        raise ValueError(f"{name}: {told}: allowed is {{low: number, high: number, log: true or false}}")
    return Parameter(name, **told)
