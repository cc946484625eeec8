"""The updates of V rows of weights by their optimisers, with all that lasts from step to step."""

import io
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flowzoo.training.optimizer import AnyOptimizer, RowOptimizer, TorchOptimizer, alone, masked
from flowzoo.training.rate import Rate, factors

Cut = Callable[[Tensor], Mapping[str, Tensor]]  # [.., P] -> weights by name, views [.., *shape]
OWN = "torch"  # in a state: what an optimiser of torch keeps, as it keeps it


class Updates(Protocol):
    """What `Program` asks of them."""

    captured: bool  # whether an update can be part of a CUDA graph
    finished: Tensor  # number of updates so far, int64 []

    def update(self, gradient: Tensor, clip: Tensor, alive: Tensor, copy: Tensor | None = None) -> None:
        """One step along `gradient` [V, P], in any precision, times `clip` [V].

        Where `alive` [V] is False the row keeps its weights, whatever its gradient is. `copy` [V, P], in a precision of
        its own, has the new weights afterwards.
        """

    def state(self) -> dict[str, Any]:
        """What lasts: the tensors themselves, not copies; [V, P] or []."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the values of what `state` gave."""


def updates_of(
    rows: Tensor, optimizers: Sequence[AnyOptimizer], rate: Rate, steps: int, cut: Cut, decayed: Tensor | None = None
) -> Updates:
    """Of `rows` [V, P], in place; `steps` is the length of the whole training.

    `cut` gives the weights in the rows. `decayed`, bool [P]: the columns that weight decay is for; None: all.
    """
    first = optimizers[0]
    if isinstance(first, TorchOptimizer):
        if len(optimizers) > 1:
            raise ValueError(alone(first.name))
        return TorchUpdates(rows, first, rate, steps, cut, decayed)
    return RowUpdates(rows, [o for o in optimizers if isinstance(o, RowOptimizer)], rate, steps, cut, decayed)


class RowUpdates:
    """An optimiser that works on rows, for V variants, each with its own rate, weight decay and clipping.

    The step counter, the rates and the mask live on the device: nothing here waits for it, so that `update` can be part
    of a CUDA graph.
    """

    captured = True

    def __init__(
        self,
        rows: Tensor,
        optimizers: Sequence[RowOptimizer],
        rate: Rate,
        steps: int,
        cut: Cut,
        decayed: Tensor | None = None,
    ) -> None:
        """As `updates_of`."""
        self.rows, self._optimizer, self._cut = rows, optimizers[0], cut
        self._decayed = None if decayed is None else decayed.to(rows.device)
        self._lr = self._column([o.lr for o in optimizers])
        self._weight_decay = self._column([o.weight_decay for o in optimizers])
        self._factors = self._column(factors(rate, steps))
        self.finished = torch.zeros((), dtype=torch.int64, device=rows.device)
        self._kept = {name: torch.zeros_like(rows) for name in self._optimizer.kept}
        self._kept |= {name: self._column([x]).reshape(()) for name, x in self._optimizer.counted.items()}

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.rows.device)

    @torch.no_grad()
    def update(self, gradient: Tensor, clip: Tensor, alive: Tensor, copy: Tensor | None = None) -> None:
        """As `Updates.update`."""
        factor = self._factors.index_select(0, self.finished.reshape(1))
        self.finished += 1
        lr = torch.where(alive, self._lr * factor, 0)
        self._optimizer.update(
            self.rows, self._kept, gradient, clip=clip, alive=alive, lr=lr, decay=self._weight_decay,
            decayed=self._decayed, t=self.finished.double(), copy=copy, cut=self._cut,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """`step` and what the optimiser keeps."""
        return {"step": self.finished, **self._kept}

    def load(self, state: Mapping[str, Any]) -> None:
        """As `Updates.load`."""
        for name, own in self.state().items():
            own.copy_(state[name])


class TorchUpdates:
    """An optimiser of torch for one network. It may do anything, so it stays outside of CUDA graphs."""

    captured = False

    def __init__(
        self, rows: Tensor, optimizer: TorchOptimizer, rate: Rate, steps: int, cut: Cut, decayed: Tensor | None = None
    ) -> None:
        """As `updates_of`, with `rows` [1, P]."""
        self.rows, self._rate, self._steps, self._cut, self._lr = rows, rate, steps, cut, optimizer.lr
        self.finished = torch.zeros((), dtype=torch.int64, device=rows.device)
        self._done = 0  # the same on this side of the device
        self._weights = {name: nn.Parameter(w[0]) for name, w in cut(rows).items()}
        if decayed is None:
            self._optimizer = optimizer.made(list(self._weights.values()))
        else:
            own = {name: bool(mask.any()) for name, mask in cut(decayed).items()}
            groups = [[w for name, w in self._weights.items() if own[name] == yes] for yes in (True, False)]
            self._optimizer = optimizer.made([{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}])

    @torch.no_grad()
    def update(self, gradient: Tensor, clip: Tensor, alive: Tensor, copy: Tensor | None = None) -> None:
        """As `Updates.update`."""
        for name, g in self._cut(masked(gradient, clip, alive, self.rows.dtype)).items():
            self._weights[name].grad = g[0]
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * self._rate.factor(self._done, self._steps)
        self.finished += 1
        self._done += 1
        before = self.rows.clone()
        self._optimizer.step()
        self.rows.copy_(torch.where(alive[:, None], self.rows, before))
        for weight in self._weights.values():
            weight.grad = None
        if copy is not None:
            copy.copy_(self.rows)

    def state(self) -> dict[str, Any]:
        """`step`, and the optimiser's own state_dict."""
        return {"step": self.finished, OWN: self._optimizer.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """As `Updates.load`."""
        self.finished.copy_(state["step"])
        self._done = int(state["step"])
        self._optimizer.load_state_dict(deepcopy(state[OWN]))  # which would share its tensors


def check_torch(optimizer: TorchOptimizer) -> None:
    """Has it update a matrix and a vector twice, and go on from its state.

    Raises:
        ValueError: it cannot do what training asks of it.
    """
    rows, ones = torch.ones(1, 8), torch.ones(1)
    updates = [TorchUpdates(x, optimizer, _Constant(), 2, _cut_in_two) for x in (rows, rows.clone())]
    updates[0].update(torch.full((1, 8), 0.5), ones, ones > 0)
    file = io.BytesIO()
    torch.save(updates[0].state(), file)
    file.seek(0)
    updates[1].load(torch.load(file, weights_only=True))
    updates[1].rows.copy_(updates[0].rows)
    for each in updates:
        each.update(torch.full((1, 8), 0.25), ones, ones > 0)
    if torch.equal(updates[0].rows, torch.ones(1, 8)):
        raise ValueError("after two steps the weights are what they were; allowed is to change them in place")
    if not torch.equal(updates[0].rows, updates[1].rows):
        raise ValueError("it does not go on from its own state_dict as it would have done")


def check_rows(optimizer: RowOptimizer) -> None:
    """Has it update two variants, of which one has diverged.

    Raises:
        ValueError: the one does not move as it does alone, or the other moves.
    """
    alive = torch.tensor([True, False])
    both, one = torch.ones(2, 8), torch.ones(1, 8)
    pair, single = (RowUpdates(x, [optimizer] * len(x), _Constant(), 2, _cut_in_two) for x in (both, one))
    for size in (0.5, 0.25):
        pair.update(torch.full((2, 8), size), torch.ones(2), alive)
        single.update(torch.full((1, 8), size), torch.ones(1), alive[:1])
    if torch.equal(one, torch.ones(1, 8)):
        raise ValueError("step changes no weights; allowed is to change w in place")
    if not torch.equal(both[:1], one):
        raise ValueError("a variant moves otherwise beside another than alone; allowed is the same formula")
    if not torch.equal(both[1:], torch.ones(1, 8)):
        raise ValueError("a variant moves whose rate and gradient are 0; allowed are steps in proportion to lr")


def _cut_in_two(x: Tensor) -> dict[str, Tensor]:
    """[.., 8] as a matrix of six weights and a vector of two."""
    return {"matrix": x[..., :6].unflatten(-1, (2, 3)), "vector": x[..., 6:]}


class _Constant:
    def factor(self, step: int, steps: int) -> float:
        return 1.0
