"""Scores a trained run: `python -m flowzoo.evaluate run=DIR evaluation.samples=500 solver=heun`."""

from flowzoo.imports import swiftly
from flowzoo.runs.output import follow
from flowzoo.runs.trained import Trained, launch_trained


def check(trained: Trained) -> None:
    """What the config and the run's folder already say is enough."""


def evaluate(trained: Trained) -> None:
    with swiftly():
        from flowzoo.build import trained_job
        from flowzoo.training.lifecycle import score_trained

    score_trained(trained_job(trained.cfg, trained.run.path), trained.options.checkpoint)


if __name__ == "__main__":
    follow()
    launch_trained("evaluate", check, evaluate)
