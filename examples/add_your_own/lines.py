"""A logger of your own, beside metrics.jsonl: numbers as lines of a text file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger


class Lines(Logger):
    """`path` may use ${run:folder}, ${run:name} and ${run:variant}; a run that goes on appends."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    @property
    def name(self) -> str:
        return "lines"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *_: Any) -> None:
        """The config is in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """A record: step, train_loss, grad_norm, lr, ... or step, val_loss_ema, val_loss_raw."""
        with open(self.path, "a") as file:
            file.write(" ".join(f"{name}={value:.6g}" for name, value in metrics.items()) + "\n")
