"""Live progress on a terminal; a plain line at each validation where there is none."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar with loss, images a second (of a stack variant-steps), the share of time spent waiting, the time left."""

    def __init__(self, title: str, steps: int, done: int) -> None:
        self.title, self.steps = title, steps
        self.console = Console()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=steps, completed=done, numbers="")
        self.bar.start()

    def update(
        self, step: int, losses: Sequence[float], images_per_s: float, variant_steps_per_s: float, wait: float
    ) -> None:
        speed = f"{images_per_s:,.0f} images/s" if len(losses) == 1 else f"{variant_steps_per_s:,.0f} variant-steps/s"
        numbers = f"loss {span(losses)}  {speed}  waiting for data {wait:.0%}"
        self.bar.update(self.task, completed=step, numbers=numbers)

    def advance(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def validated(self, step: int, losses: Sequence[tuple[float, float]]) -> None:
        """EMA and raw validation loss of each run."""
        ema, raw = (span([pair[k] for pair in losses]) for k in (0, 1))
        self.say(f"{self.title}  step {step}/{self.steps}  validation loss {ema} (EMA), {raw} (raw)")

    def say(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bar.stop()


def span(values: Sequence[float]) -> str:
    """The number, or the smallest and the largest of several."""
    low, high = min(values), max(values)
    return f"{low:.4f}" if len(values) == 1 else f"{low:.4f} to {high:.4f}"
