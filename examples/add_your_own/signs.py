"""An optimiser of your own, which stacks take: every weight moves by its rate (Bernstein et al. 2018)."""

from torch import Tensor

from flowzoo.training.optimizer import RowOptimizer


class Signs(RowOptimizer):
    """Along the sign of an average of the gradient, `exp_avg`: that is kept unless `kept` names other tensors."""

    def __init__(self, lr: float, beta: float = 0.9, weight_decay: float = 0.0) -> None:
        self.lr, self.beta, self.weight_decay = lr, beta, weight_decay

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """w, g and exp_avg [V, P]; lr and decay broadcast; t [] counts from 1."""
        kept["exp_avg"].lerp_(g, 1 - self.beta)
        w.sub_(lr * (kept["exp_avg"].sign() + decay * w))
