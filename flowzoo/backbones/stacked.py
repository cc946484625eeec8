"""V backbones of one class and size, V >= 1, as one network with one parameter."""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from flowzoo.encoders.text import Text, understood

# Under vmap the memory-efficient one fails in its backward pass, at most lengths ("LSE is not correctly aligned").
VMAPPED = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


class StackedBackbone(nn.Module):
    """All weights of variant v are row v of `flat` [V, P], P parameters in the order of the backbone.

    One tensor, so that the optimiser, the average, the norms and the clipping of all variants are a few kernels. The
    rows are cut into the backbone's parameters [V, ...] by views.
    vmap goes around the network only: losses are summed and differentiated outside.
    """

    knows_counts = True  # of equal text tokens; whether the backbones do or not

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        """Copies the weights; a backbone may stand for several variants. ValueError where they are not of one kind."""
        super().__init__()
        first = backbones[0]
        self.shapes = {name: p.shape for name, p in first.named_parameters()}
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        distinct = {id(backbone): backbone for backbone in backbones}
        rows = torch.stack([self.row(backbone.state_dict()) for backbone in distinct.values()])
        places = [list(distinct).index(id(backbone)) for backbone in backbones]
        self.flat = nn.Parameter(rows if places == list(range(len(rows))) else rows[places])
        for other in distinct.values():
            for (name, one), two in zip(first.named_buffers(), other.buffers(), strict=True):
                if not torch.equal(one, two):
                    raise ValueError(f"buffer {name} differs between variants; allowed: constants, the same for all")
        self.skeleton = copy.deepcopy(first, {id(p): p for p in first.parameters()})  # without weights of its own
        for name in self.shapes:
            owner, _, last = name.rpartition(".")
            self.skeleton.get_submodule(owner).register_parameter(last, None)

    def __len__(self) -> int:
        return len(self.flat)

    def working(self) -> Tensor:
        """[V, P] what a forward pass computes with: under autocast all weights in its precision, else `flat` itself.

        One pass over memory, where autocast would cast every layer's weight by itself.
        """
        device = self.flat.device.type
        half = torch.is_autocast_enabled(device) and self.flat.dtype == torch.float32
        return self.flat.to(torch.get_autocast_dtype(device)) if half else self.flat

    def cut(self, rows: Tensor) -> dict[str, Tensor]:
        """[..., P] -> parameters by name, [..., *shape]."""
        pieces = rows.split(self.sizes, dim=-1)
        lead = rows.shape[:-1]
        return {name: x.view((*lead, *shape)) for (name, shape), x in zip(self.shapes.items(), pieces, strict=True)}

    def row(self, state: Mapping[str, Tensor]) -> Tensor:
        """[P] from a backbone's parameters by name. ValueError where one is missing or of another shape."""
        for name, shape in self.shapes.items():
            if name not in state or state[name].shape != shape:
                found = f"has shape {list(state[name].shape)}" if name in state else "is missing"
                raise ValueError(f"{name} {found}; this backbone's is {list(shape)}")
        return torch.cat([state[name].detach().reshape(-1) for name in self.shapes])

    def holding(self, flat: Tensor) -> "StackedBackbone":
        """The same network with other weights [M, P]; everything else is shared."""
        other = copy.copy(self)
        other._parameters = {"flat": nn.Parameter(flat)}
        return other

    def member(self, row: Tensor) -> dict[str, Tensor]:
        """What the state_dict of one variant's backbone is, from its [P] weights."""
        return self.cut(row) | self.skeleton.state_dict()

    def call(self, weights: Mapping[str, Tensor], z: Tensor, label: Tensor, text: Text) -> Tensor:
        """As `forward`, with weights by name [V, *shape] that are given."""
        text, own = understood(self.skeleton, text), text.tokens[0].ndim == 4
        if len(z) == 1:  # whatever vmap knows, a network alone runs
            alone = {name: w.squeeze(0) for name, w in weights.items()}
            return self._one(alone, z.squeeze(0), label.squeeze(0), *(text.rows(0) if own else text))[None]
        with sdpa_kernel(VMAPPED):
            of_text = 0 if own else None
            one = partial(self._one, counts=text.counts)
            return vmap(one, in_dims=(0, 0, 0, of_text, of_text))(dict(weights), z, label, text.tokens, text.pooled)

    def _one(
        self,
        weights: dict[str, Tensor],
        z: Tensor,
        label: Tensor,
        tokens: tuple[Tensor, ...],
        pooled: tuple[Tensor, ...],
        counts: tuple[int, ...],
    ) -> Tensor:
        return functional_call(self.skeleton, weights, (z, label, Text(tokens, pooled, counts)))

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [V, B, C, H, W], label [V, B] in 0..1000, text of all [B, ...] or of each [V, B, ...] -> like z."""
        return self.call(self.cut(self.working()), z, label, text)


class Single(StackedBackbone):
    """Any one module, V = 1, whatever it takes and gives: what trains the frozen networks beside backbones."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__([module])

    def call(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
        """What the module gives, [1, ...], a tensor or a tuple of them, with weights by name [1, *shape]."""
        out = functional_call(self.skeleton, {name: w.squeeze(0) for name, w in weights.items()}, inputs)
        return tuple(x[None] for x in out) if isinstance(out, tuple) else out[None]

    def matrices(self) -> Tensor:
        """Which columns of the rows are elements of matrices and larger tensors, bool [P]: what decay is for."""
        each = [torch.full((n,), len(s) >= 2) for n, s in zip(self.sizes, self.shapes.values(), strict=True)]
        return torch.cat(each)
