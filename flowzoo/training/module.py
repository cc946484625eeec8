"""A program as Lightning's trainer sees it."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning import LightningModule

from flowzoo.runs.files import RunError
from flowzoo.training.processes import part_of
from flowzoo.training.program import Program


class TrainingModule(LightningModule):
    """Hands Lightning's steps and checkpoints to a `Program`, which updates its weights itself.

    Lightning brings the device, the processes, loggers and callbacks. To callbacks the module shows `program`; its own
    state_dict is empty, and its one optimiser only counts steps.
    """

    def __init__(self, program: Program, strategy: str) -> None:
        """`strategy` is `trainer.strategy`, which says what several processes share."""
        super().__init__()
        self.program, self._strategy = program, strategy
        self.strict_loading = self.automatic_optimization = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return _Counts(self.program.rates[0].lr)

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        return batch  # it is made there

    def train_dataloader(self) -> Iterable[Any]:
        return _From(self)

    def on_fit_start(self) -> None:
        part = part_of(self._strategy, self.global_rank, self.trainer.world_size)
        self.program.begin(self.device, part)

    def training_step(self, batch: Any, _: int) -> None:
        self.program.step(batch, self.global_step)
        self.optimizers().step()  # type: ignore[union-attr]

    def on_fit_end(self) -> None:
        self.program.end()

    def log(self, name: str, *_: Any, **__: Any) -> None:
        """Refused: of V runs nothing would say whose number it is."""
        raise RunError(f"a callback logs {name} by the module; allowed is trainer.loggers, one a run or none")

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["program"] = self.program.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.program.load(checkpoint["program"])


class _From:
    """An endless iterable that begins at the module's step, whenever Lightning asks."""

    def __init__(self, module: TrainingModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[Any]:
        return iter(self.module.program.task.batches(self.module.global_step))


class _Counts(torch.optim.Optimizer):
    """What Lightning counts steps by; `lr` is the first variant's highest, for those who ask any optimiser."""

    def __init__(self, lr: float) -> None:
        super().__init__([torch.nn.Parameter(torch.empty(0))], {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        """Lightning's closure does nothing; it is called, since Lightning asks for that."""
        return closure() if closure is not None else None
