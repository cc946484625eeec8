"""A function of tensors as CUDA graphs: hundreds of launches become one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

WARM_UPS = 2  # calls of one shape that run as they are: kernels are compiled and chosen in them


class Captured:
    """`function`, which works on a GPU and waits for nothing there; it may change other tensors in place.

    Of each shape of its inputs the first calls run as they are. One is then captured, and every later one is a single
    launch. What a call returns is overwritten by the next. Nothing is compiled, so that the first result comes at once.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._graphs: dict[Any, _Graph | int] = {}  # or the number of calls so far
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, *inputs: Any) -> Any:
        tensors, tree = tree_flatten(inputs)
        key = (tree, *((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in tensors))
        known = self._graphs.get(key, 0)
        if isinstance(known, int) and known < WARM_UPS:
            self._graphs[key] = known + 1
            return self.function(*inputs)
        if isinstance(known, int):
            known = self._graphs[key] = _Graph(self.function, tensors, tree, self._pool)
        return known.replay(tensors)


class _Graph:
    def __init__(self, function: Callable[..., Any], tensors: list[Any], tree: TreeSpec, pool: Any) -> None:
        self.inputs = [x.clone() if isinstance(x, Tensor) else x for x in tensors]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.result = function(*tree_unflatten(self.inputs, tree))

    def replay(self, tensors: list[Any]) -> Any:
        pairs = [(own, x) for own, x in zip(self.inputs, tensors, strict=True) if isinstance(x, Tensor)]
        torch._foreach_copy_([own for own, _ in pairs], [x for _, x in pairs])
        self.graph.replay()
        return self.result
