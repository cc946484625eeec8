"""Goes on with a finished run: `python -m flowzoo.extend run=DIR steps=N`.

What comes of it is the run of N steps, under that run's name, as if it had been trained from the start: bit for bit on
a CPU. So it is refused where the shorter run did something in its steps that the longer one does not do.
"""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowzoo.imports import swiftly
from flowzoo.runs.check import check_stored
from flowzoo.runs.identity import run_folder, run_hash, run_variant
from flowzoo.runs.layout import AUTOENCODER, DATA, METRICS
from flowzoo.runs.output import follow
from flowzoo.runs.store import Run, RunError, attempt
from flowzoo.runs.trained import Trained, launch_trained

BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
TAKEN = (DATA, AUTOENCODER, METRICS, BEST, LAST)  # of the shorter run; the last is what training goes on from


def check(trained: Trained) -> None:
    """Makes the run's config that of the longer run.

    Raises ValueError where going on would not be the run of that length, or where there is nothing to go on from.
    """
    run, options, cfg = trained
    before, steps = cfg.trainer.steps, options.steps
    if steps <= before:
        raise ValueError(f"steps={steps}: the run has {before} already; allowed is a greater number")
    if run.state != "done":
        raise ValueError(f"run={run.path}: it is {run.state}; allowed is a run that is done")
    if run_hash(cfg) != run_hash(run.config):
        raise ValueError(f"run={run.path}: what is typed beside steps= makes it another run; allowed is what does not")
    if not options.fresh:
        _check_same(cfg, steps)
    cfg.trainer.steps = steps
    logger = OmegaConf.to_container(cfg.logger) if cfg.get("logger") else None
    if logger:  # it stands in config.yaml with the name of its run
        cfg.logger = _renamed(logger, run.path.name, run_folder(cfg).name)
    check_stored(cfg)


def _check_same(cfg: DictConfig, steps: int) -> None:
    """Raises ValueError where the steps so far are not those of a training of `steps`."""
    instead = f"allowed: fresh=true, which trains the run of {steps} steps from the start"
    before = cfg.trainer.steps
    with swiftly():
        from flowzoo.build import rate_of

    rate = rate_of(cfg.optimizer)
    for step in range(before):
        if rate.factor(step, before) != rate.factor(step, steps):
            said = "optimizer.rate" if cfg.optimizer.get("rate") else f"optimizer.decay_to={cfg.optimizer.decay_to:g}"
            raise ValueError(
                f"steps={steps}: with {said} the learning rate of a step depends on the length of the training, so "
                f"going on from step {before} would be something else under the name of that run; {instead}"
            )
    for key in ("val_every", "log_every"):
        if before % cfg.trainer[key]:
            raise ValueError(
                f"steps={steps}: the run ended at step {before}, which is no multiple of trainer.{key}="
                f"{cfg.trainer[key]}, and looked at itself where the longer one does not; {instead}"
            )


def _renamed(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return {key: _renamed(value, old, new) for key, value in node.items()}
    return node.replace(old, new) if isinstance(node, str) else node


def extend(trained: Trained) -> None:
    """Trains the longer run from where it stands: at first where the shorter one ended."""
    attempt(lambda cfg: _train(cfg, None if trained.options.fresh else trained.run), trained.cfg)


def _train(cfg: DictConfig, shorter: Run | None) -> None:
    with swiftly():
        from flowzoo.build import jobs_left
        from flowzoo.training.lifecycle import train_and_score

    run = Run(run_folder(cfg))
    if shorter is not None and not run.is_over(halved=False) and not (run.path / LAST).exists():
        _take(run, shorter, cfg)
    train_and_score(jobs_left([cfg]))


def _take(run: Run, shorter: Run, cfg: DictConfig) -> None:
    """Gives the longer run what the shorter one has come to. Raises RunError."""
    if missing := [name for name in TAKEN if not (shorter.path / name).is_file()]:
        raise RunError(f"{shorter.path / missing[0]} is missing: there is nothing to go on from; allowed: fresh=true")
    run.make(cfg, run_variant(cfg))
    with run.lock():
        (run.path / LAST).parent.mkdir(exist_ok=True)
        for name in TAKEN:
            part = Path(f"{run.path / name}.part")
            shutil.copyfile(shorter.path / name, part)
            part.replace(run.path / name)


if __name__ == "__main__":
    follow()
    launch_trained("extend", check, extend)
