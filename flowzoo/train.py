"""Trains, samples and scores one formulation: `python -m flowzoo.train path=rf sampler=lognorm`."""

from omegaconf import DictConfig

from flowzoo.runs.config import launch


def run(cfg: DictConfig) -> None:
    """One run from its config to its rows of results; the same call goes on where an earlier one stopped."""
    from flowzoo.training.job import train_and_score

    train_and_score(cfg)


if __name__ == "__main__":
    launch("train", run)
