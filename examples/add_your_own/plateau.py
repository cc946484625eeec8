"""A learning-rate schedule of your own: warm-up, a plateau, and a short way down (Hu et al. 2024, WSD)."""


class Plateau:
    """Linear up over `warmup_steps`, and linear down to 0 over the last `share` of the training."""

    def __init__(self, warmup_steps: int, share: float = 0.2) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"Plateau's share={share}: allowed is a number in (0, 1]")
        self.warmup_steps, self.share = warmup_steps, share

    def factor(self, step: int, steps: int) -> float:
        """On lr, for the step that follows `step` finished ones of `steps`."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps), (steps - step) / (self.share * steps))
