"""flowzoo's own training, under Lightning as `flowzoo.train` runs it, and the same module in a bare loop."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from flowzoo.bench.profile import profiled
from flowzoo.bench.stopwatch import ClockedRun, Enough, Stopwatch
from flowzoo.build import build, build_stack, device_of, precision_of, source_of
from flowzoo.data.loader import Batches
from flowzoo.encoders.text import TextEncoders
from flowzoo.runs.store import Run
from flowzoo.training.checkpoint import AtomicIO
from flowzoo.training.fit import batches_of, solo_module, stacked_module, train_module
from flowzoo.training.module import Trained


class Subject:
    """A module that trains the runs of `cfgs`, with its data, which is loaded once."""

    def __init__(self, cfgs: Sequence[DictConfig], folder: Path) -> None:
        self.cfgs, self.folders = cfgs, [folder / str(i) for i in range(len(cfgs))]
        for path in self.folders:
            path.mkdir(parents=True, exist_ok=True)
        self.cfg, self.device = cfgs[0], device_of(cfgs[0])
        self.train, self.val = source_of(self.cfg, "train"), source_of(self.cfg, "val")
        self._batches: Batches | None = None
        self.module: Trained

    def _stream(self, text: TextEncoders, device: torch.device) -> Batches:
        if self._batches is None:
            text.to(device)
            self._batches = batches_of(self.cfg, text, self.train, device)
        return self._batches

    def lightning(self, watch: Stopwatch) -> None:
        """The whole real path: loader, Lightning, records, average; no validation and no checkpoint within the laps.

        KeyboardInterrupt where a signal ended the training, which then saves and returns as it always does.
        """
        cfgs = [cfg.copy() for cfg in self.cfgs]
        for cfg in cfgs:
            cfg.trainer.log_every = watch.steps
        runs = [ClockedRun(self.folders[0], watch), *map(Run, self.folders[1:])]
        try:
            outcome = train_module(cfgs, runs, self.module, self.val, lambda: 0.0, AtomicIO(), resume=False)
        except Enough:
            self.module.on_fit_end()  # which Lightning leaves out where training ends by an exception
        else:
            if outcome.interrupted:
                raise KeyboardInterrupt

    def bare(self, watch: Stopwatch) -> None:
        """The same steps of the same module, called one after another."""
        watch.run(bare_step(self.module, self.cfg, self.device), self.device)
        self.module.on_fit_end()

    def profiled(self, steps: int, top: int) -> dict[str, Any]:
        """Where the time of the same bare steps goes, as `flowzoo.bench.profile.profiled` tells it."""
        told = profiled(bare_step(self.module, self.cfg, self.device), self.device, steps, top)
        self.module.on_fit_end()
        return told


class Solo(Subject):
    """One run; as `flowzoo.training.fit.fit` makes it."""

    def __init__(self, cfg: DictConfig, folder: Path, compile_mode: str | None) -> None:
        super().__init__([cfg], folder)
        built = build(cfg, self.folders[0], self.train)
        self.module = solo_module(cfg, built, compile_mode, lambda on, *_: self._stream(built.text, on))


class Stack(Subject):
    """Many runs of one seed; as `flowzoo.training.fit.fit_stack` makes them."""

    def __init__(self, cfgs: Sequence[DictConfig], folder: Path, compile_mode: str | None) -> None:
        super().__init__(cfgs, folder)
        built = build_stack(cfgs, self.folders, self.train)
        # one seed
        self.module = stacked_module(cfgs, built, compile_mode, lambda on, _: [self._stream(built.text, on)])


class _Steps:
    """What a module asks of its trainer."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self) -> None:
        self.global_step = 0
        self.optimizers: list[Any] = []


def bare_step(module: Trained, cfg: DictConfig, device: torch.device) -> Callable[[], None]:
    """A training step with everything that Lightning's has, in its order, and the average after it."""
    trainer = _Steps()
    module.to(device).train()
    module.trainer = trainer  # type: ignore[assignment]
    made: Any = module.configure_optimizers()
    optimizer, schedule = (
        (made["optimizer"], made["lr_scheduler"]["scheduler"]) if isinstance(made, dict) else (made, None)
    )
    trainer.optimizers = [optimizer]
    module.on_fit_start()
    batches = iter(module.train_dataloader())
    half = "bf16" in precision_of(cfg, device)

    def step() -> None:
        batch = next(batches)
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss: Any = module.training_step(batch, trainer.global_step)
        if loss is not None:  # a stack has updated its weights itself
            module.optimizer_zero_grad(0, trainer.global_step, optimizer)
            module.backward(loss)
            module.configure_gradient_clipping(optimizer)
            optimizer.step()
        if schedule is not None:
            schedule.step()
        trainer.global_step += 1
        module.ema.update(module.backbone, trainer.global_step)

    return step
