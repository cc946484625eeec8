"""Live progress on a terminal; a plain line at each validation where there is none."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar with loss, images a second, the share of time spent waiting for data, and the time left."""

    def __init__(self, title: str, steps: int, done: int) -> None:
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

    def update(self, step: int, loss: float, images_per_s: float, wait: float) -> None:
        numbers = f"loss {loss:.4f}  {images_per_s:,.0f} images/s  waiting for data {wait:.0%}"
        self.bar.update(self.task, completed=step, numbers=numbers)

    def advance(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def say(self, line: str) -> None:
        self.bar.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bar.stop()
