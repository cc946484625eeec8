"""V networks of one kind, trained as one program: a step from inputs to weights, with everything that it keeps."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.backbones.fused.linear import gradients_in
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.captured import Captured
from flowzoo.tasks.task import Network, Task
from flowzoo.training.ema import AVERAGE, Average, told_average
from flowzoo.training.optimizer import AnyOptimizer, RowOptimizer, clip_factors, needs_whole_weights
from flowzoo.training.processes import Alone
from flowzoo.training.rate import Rate
from flowzoo.training.updates import updates_of


class Program(nn.Module):
    """The weights of variant v are row v of [V, P], V >= 1; each ends with the weights that it would have alone.

    Nothing in a step waits for the device or loops over variants. A variant whose loss or gradient norm is not finite
    keeps its weights from that step on. What happened since the last look is kept on the device, so that looking is
    rare. With several processes (flowzoo/training/processes.py) all decide alike, from what they have reduced.
    """

    loss_sum: Tensor  # [V], as the next two
    norm_sum: Tensor
    diverged_at: Tensor  # number (from 1) of the first step with a non-finite loss or gradient norm, 0 for none
    loss_count: Tensor  # []

    def __init__(
        self,
        network: StackedBackbone,
        task: Task,
        ema: Average,
        optimizers: Sequence[AnyOptimizer],
        rate: Rate,
        *,
        steps: int,
        clip_norm: float | None,
        mixed: bool,
        compile_mode: str | None,
        accumulate: int = 1,
        decayed: Tensor | None = None,
    ) -> None:
        """`optimizers`, one a variant; `rate` is how far from each one's lr a step of a training of `steps` is.

        `decayed`, bool [P]: the columns that weight decay is for, None for all.

        `accumulate`: parts of a batch that are differentiated one after another; their gradients are added up in
        float32 or better.
        `mixed`: forward and backward pass in bf16, weights in float32.
        `compile_mode`: "reduce-overhead" makes the step a CUDA graph, for which the losses are compiled where the task
        says so; "default" compiles the losses.
        """
        super().__init__()
        self.network, self.task, self.ema, self.optimizers, self.rate = network, task, ema, optimizers, rate
        self.steps, self.clip_norm, self.mixed, self.compile_mode = steps, clip_norm, mixed, compile_mode
        self.accumulate, self._decayed = accumulate, decayed
        self.best = [math.inf] * len(optimizers)  # lowest validation loss of the average, of each variant
        for name, shape in (("loss_sum", len(optimizers)), ("norm_sum", len(optimizers)), ("loss_count", ())):
            self.register_buffer(name, torch.zeros(shape), persistent=False)
        self.register_buffer("diverged_at", torch.zeros(len(optimizers), dtype=torch.long), persistent=False)
        self._restored: Mapping[str, Any] | None = None
        compiled = compile_mode == "default" or (compile_mode is not None and task.compiled)
        self._losses: Callable[..., Tensor] = torch.compile(task.losses, dynamic=False) if compiled else task.losses

    # the life of a fit

    def begin(self, device: torch.device, part: Alone) -> None:
        """Before the first step: everything that lasts is made, or restored, on `device`."""
        self.to(device)
        self.device, self.part = device, part
        self.task.begin(device, part.rank, part.world)
        flat = self.network.flat.detach()
        if self._restored is not None:
            flat.copy_(self._restored["weights"])
        self.rows = part.own(flat)  # float32 or float64, [V, p]
        decayed = self._decayed
        if decayed is not None:
            decayed = part.own(decayed.to(device).expand(flat.shape))[0]
        first = self.optimizers[0]
        if self.rows.shape != flat.shape and (not isinstance(first, RowOptimizer) or first.by_weight):
            raise ValueError(needs_whole_weights(type(first).__name__))
        self.updates = updates_of(self.rows, self.optimizers, self.rate, self.steps, self.network.cut, decayed)
        self.ema.start(self.rows)
        if self._restored is not None:
            self._restore(self._restored)
        # What is differentiated, [V, P]: where the weights are split or half as precise, a copy which the optimiser
        # keeps up to date; its gradient is in the same precision.
        with self._autocast():
            self.working = self.network.working().detach()
        if self.rows is not flat:
            self.network.flat = nn.Parameter(self.working, requires_grad=False)  # no process keeps all in full
        self._part = torch.empty_like(self.working)  # the gradient of a part of the batch
        self._gradient = self._part if self.accumulate == 1 else torch.empty_like(self.working, dtype=self.rows.dtype)
        self._mean = self._gradient
        together = self.compile_mode == "reduce-overhead"
        capture: Callable[[Callable[..., Any]], Callable[..., Any]] = Captured if together else lambda f: f
        captured = part.captured and self.updates.captured
        if part.world == 1 and captured:
            self._advance = capture(self._whole_step)
        else:
            self._advance = self._in_two(
                capture(self._differentiated), capture(self._update) if captured else self._update
            )

    def end(self) -> None:
        """After the last step: the memory of graphs and copies is given back."""
        for name in ("_advance", "_part", "_gradient", "_mean", "working", "updates", "rows"):
            delattr(self, name)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    # a step

    def step(self, batch: Any, step: int) -> None:
        """The step that follows `step` finished ones, update and average included."""
        with self._autocast():
            self._advance(*self.task.inputs(batch, step))
        self.ema.update(self.rows, step + 1)

    def _whole_step(self, *inputs: Any) -> None:
        """From inputs to weights. On a GPU one CUDA graph: only the values of tensors may change."""
        self._update(self._differentiated(*inputs))

    def _in_two(self, differentiated: Callable[..., Tensor], update: Callable[..., None]) -> Callable[..., None]:
        """The same in two graphs, and between them what the processes tell each other."""

        def advance(*inputs: Any) -> None:
            losses = differentiated(*inputs)
            self._mean = self.part.mean(self._gradient, losses)
            update(losses)

        return advance

    def _differentiated(self, *inputs: Any) -> Tensor:
        """The losses [V] and their gradient, of the whole batch, whatever its parts: equal but for rounding."""
        if self.accumulate == 1:
            return differentiate(self._losses, self.network, self.working, self._part, *inputs)
        self._gradient.zero_()
        each = []
        for part in self.task.parts(inputs, self.accumulate):
            each.append(differentiate(self._losses, self.network, self.working, self._part, *part))
            self._gradient.add_(self._part, alpha=1 / self.accumulate)
        return torch.stack(each).mean(0)

    def _update(self, losses: Tensor) -> None:
        gradient = self._mean
        with torch.autocast(self.device.type, enabled=False):
            step = self.updates.finished + 1
            self._note(self.loss_sum, losses, step)
            self.loss_count += 1
            # Each is clipped by its own norm; where that is not finite the variant stops here.
            norms = self.part.norms(gradient, self.rows.dtype)
            self._note(self.norm_sum, norms, step)
            clip, alive = clip_factors(norms, self.clip_norm), self.diverged_at == 0
            copy = None if self.working.data_ptr() == self.rows.data_ptr() else self.working
            if self.rows.shape == self.working.shape:
                self.updates.update(gradient, clip, alive, copy)
            else:
                own = torch.empty_like(self.rows, dtype=self.working.dtype)
                self.updates.update(gradient, clip, alive, own)
                self.working.copy_(self.part.whole(own, self.working))

    def _note(self, total: Tensor, values: Tensor, step: Tensor) -> None:
        total += values
        bad = ~torch.isfinite(values) & (self.diverged_at == 0)
        self.diverged_at.copy_(torch.where(bad, step, self.diverged_at))

    # what others look at

    def take_means(self) -> list[tuple[float, float]]:
        """Mean loss and gradient norm of each variant since the last call. Waits for the device."""
        losses, norms = ((x / self.loss_count.clamp(min=1)).tolist() for x in (self.loss_sum, self.norm_sum))
        for buffer in (self.loss_sum, self.norm_sum, self.loss_count):
            buffer.zero_()
        return list(zip(losses, norms, strict=True))

    def learning_rates(self, step: int) -> list[float]:
        """Of each variant, for the step that follows `step` finished ones."""
        factor = self.rate.factor(step, self.steps)
        return [o.lr * factor for o in self.optimizers]

    def validate(self) -> dict[str, Tensor]:
        """{"raw": losses [V, n], "ema": the same}: the task's, of the weights as they are and of their average."""
        self.network.eval()
        with self._autocast():
            raw = self.task.validate(self._network(self.working))
            averaged = self.task.validate(self._averaged())
        self.network.train()
        return {"raw": raw, "ema": averaged}

    def _network(self, rows: Tensor) -> Network:
        weights = self.network.cut(rows)
        return lambda *inputs: self.network.call(weights, *inputs)

    def _averaged(self) -> Network:
        average = self.ema.average()
        if average is None:
            return self._network(self.working)
        return self._network(self.part.whole(average.to(self.working.dtype), self.working))

    # checkpoints

    def state(self) -> dict[str, Any]:
        """All that a fit goes on from; tensors of whole rows [V, P]. Every process takes part."""
        whole = partial(self.part.whole, like=self.working)
        return {
            "weights": whole(self.rows),
            "ema": mapped(whole, told_average(self.ema)),
            "optimizer": mapped(whole, self.updates.state()),
            "since_last_record": [x.tolist() for x in (self.loss_sum, self.norm_sum, self.loss_count)],
            "diverged_at": self.diverged_at.tolist(),
            "best": self.best,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Has `begin` go on from what `state` gave."""
        self._restored = state

    def _restore(self, state: Mapping[str, Any]) -> None:
        kept = {name: x for name, x in state["ema"].items() if name != AVERAGE}
        self.ema.load(mapped(self.part.own, kept))
        self.updates.load(mapped(self.part.own, state["optimizer"]))
        self.best = list(state["best"])
        sums = (self.loss_sum, self.norm_sum, self.loss_count)
        for buffer, values in zip(sums, state["since_last_record"], strict=True):
            buffer.copy_(torch.tensor(values, dtype=torch.float64))
        self._restored = None


def mapped(change: Callable[[Tensor], Tensor], state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with its rows [V, P] changed; numbers, and what an optimiser of torch keeps, stay as they are."""
    return {name: change(x) if isinstance(x, Tensor) and x.ndim else x for name, x in state.items()}


def differentiate(
    losses_of: Callable[..., Tensor], network: StackedBackbone, flat: Tensor, gradient: Tensor, *inputs: Any
) -> Tensor:
    """The losses [V] with weights `flat` [V, P]; their gradients go to `gradient` [V, P]."""
    leaves = {name: w.detach().requires_grad_() for name, w in network.cut(flat).items()}
    weights, places = list(leaves.values()), list(network.cut(gradient).values())
    losses = losses_of(network, leaves, *inputs)
    with torch.autocast(flat.device.type, enabled=False), gradients_in(weights, places) as written:
        # vmap inside, the sum and the backward pass outside
        grads = torch.autograd.grad(losses.sum(), weights, allow_unused=True)
        whole = []
        for i, (place, grad) in enumerate(zip(places, grads, strict=True)):
            if i not in written:
                whole.append((place, torch.zeros_like(place) if grad is None else grad))
            elif grad is not None:
                place.add_(grad)
        torch._foreach_copy_([place for place, _ in whole], [grad for _, grad in whole])
    return losses.detach()
