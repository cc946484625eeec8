"""The objective that trains: a trial is an ordinary run of the study's folder, judged in one sampler setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.grouping import alone, is_stacked
from flowzoo.runs.identity import run_folder
from flowzoo.runs.parse import quoted
from flowzoo.runs.rows import metrics_of
from flowzoo.runs.store import FINISHED, Run, RunBusy, attempt
from sweeps.definition import translated
from sweeps.search.objective import Busy, Verdict

GUIDANCE = "guidance"  # the parameter that is no key of the config


class Training:
    """Scores of a run's `weights` after `steps` sampler steps at `guidance`, which may be a parameter.

    `words` are those of flowzoo.train's command line. Parameters that change no weight, guidance and solver.shift, lead
    to another row of the same run: it is not trained again.
    """

    def __init__(
        self, sweep: str, words: Sequence[str], weights: str = "ema", steps: int = 25, guidance: float | None = None
    ) -> None:
        self.words = [f"sweep={quoted(sweep)}", *map(translated, words)]
        self.weights, self.steps, self.guidance = weights, steps, guidance
        self.batch = 1
        self.middle: DictConfig | None = None

    def check(self, low: Mapping[str, float], high: Mapping[str, float]) -> None:
        if (GUIDANCE in low) == (self.guidance is not None):
            raise ValueError(
                f"guidance={self.guidance}: allowed is a number in the objective, or a range among the parameters"
            )
        for ends in (low, high):
            check_jobs([self.cfg(ends)])
        self.middle = self.cfg({name: (low[name] + high[name]) / 2 for name in low})
        check_jobs([self.middle])  # no integer, as what is drawn
        if is_stacked(self.middle):
            if self.middle.stack.size == "auto":
                raise ValueError("stack.size=auto: allowed in a search is the number of trials that are asked at once")
            self.batch = self.middle.stack.size

    def described(self) -> Mapping[str, Any]:
        assert self.middle is not None
        cfg = alone(self.middle)
        keys = [str(key) for key in cfg if key != "logger"]  # which asks for its run
        described: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)
        return described

    def cfg(self, parameters: Mapping[str, float]) -> DictConfig:
        """The config of a trial's run. Raises ValueError and Hydra's own errors."""
        setting = f"{{steps: {self.steps}, guidance: {parameters.get(GUIDANCE, self.guidance)!r}}}"
        judged = [f"evaluation.weights=[{self.weights}]", f"evaluation.settings=[{setting}]"]
        own = [f"{name}={value!r}" for name, value in parameters.items() if name != GUIDANCE]
        with config_loader() as loader:
            (cfg,) = compose_jobs(loader, "train", [*self.words, *judged, *own], multirun=False)
        return cfg

    def judge(self, asked: Sequence[Mapping[str, float]]) -> list[Verdict]:
        cfgs = [self.cfg(parameters) for parameters in asked]
        check_jobs(list({run_folder(cfg): cfg for cfg in cfgs}.values()))
        to_train = {run_folder(cfg): cfg.copy() for cfg in cfgs if Run(run_folder(cfg)).state not in FINISHED}
        for cfg in to_train.values() if self.batch > 1 else ():
            # one stack, though they may be judged in different settings: rows in their own are made afterwards
            cfg.evaluation, cfg.solver = cfgs[0].evaluation, cfgs[0].solver
        try:
            _train(list(to_train.values()))
            return [self._verdict(alone(cfg)) for cfg in cfgs]
        except RunBusy as error:
            raise Busy(str(error)) from error

    def _verdict(self, cfg: DictConfig) -> Verdict:
        run = Run(run_folder(cfg))
        state = run.state
        if state in ("diverged", "stopped"):
            return Verdict(None, state, run.path.name)
        if state == "failed":
            raise RuntimeError(f"{run.path}: {run.status.get('exception')}")
        if state != "done":
            raise Busy(f"{run.path} is in other hands")
        row = self._row(cfg, run)
        if row is None:
            from flowzoo.build import trained_job
            from flowzoo.training.lifecycle import score_trained

            score_trained(trained_job(cfg, run.path), "best")
            row = self._row(cfg, run)
            assert row is not None
        return Verdict({name: row[name] for name in metrics_of(row)}, run=run.path.name)

    def _row(self, cfg: DictConfig, run: Run) -> dict[str, Any] | None:
        """The row of this setting, of the protocol that was scored last; None where there is none."""
        from hydra.utils import instantiate

        solver, (setting,) = instantiate(cfg.solver), cfg.evaluation.settings
        wanted = {"weights": self.weights, "steps": setting.steps, "guidance": float(setting.guidance)}
        wanted |= {"rule": solver.name, "grid": solver.grid.name, "shift": float(solver.shift)}
        wanted |= {"n_samples": cfg.evaluation.samples}
        rows = [row for row in run.rows() if all(row[key] == value for key, value in wanted.items())]
        return rows[-1] if rows else None


def _train(cfgs: Sequence[DictConfig]) -> None:
    """Trains and scores, alone or as stacks. A run that fails says so in its status. Raises RunBusy."""
    if not cfgs:
        return
    if is_stacked(cfgs[0]):
        from flowzoo.stacks import run_stacks

        if run_stacks(cfgs) == 130:
            raise KeyboardInterrupt
        return
    from flowzoo.train import run

    for cfg in cfgs:
        attempt(run, cfg)
