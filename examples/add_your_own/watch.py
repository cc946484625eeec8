"""A callback of your own: prints how long the weights of each variant are."""

from typing import Any

from lightning import Callback, LightningModule, Trainer


class Watch(Callback):
    """Every so many steps. A callback only looks; docs/extending.md lists the hooks that fire."""

    def __init__(self, every: int = 100) -> None:
        self.every = every

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            rows: Any = module.program.rows  # [V, P]
            print(f"step {trainer.global_step}: lengths of weights {rows.norm(dim=1).tolist()}")
