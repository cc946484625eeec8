"""A sweep that is hit: where its runs stand, and what of it may never change."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flowzoo.runs.lock import LOCK, Held
from flowzoo.runs.store import FINISHED, Run, RunError
from sweeps.manifest import PLAN, Manifest

HERE = Path(__file__).parent
DEFINITION = HERE / "twelve.yaml"


@dataclass
class Victim:
    """The sweep of twelve.yaml under `runs`, planned with `words`. `sealed`: what runs looked like once done."""

    runs: Path
    words: list[str]
    sealed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.runs / DEFINITION.stem

    @property
    def arguments(self) -> list[str]:
        return [str(DEFINITION), f"runs={self.runs}", *self.words]

    def planned(self) -> list[Run]:
        """Empty before the plan is written."""
        if not (self.folder / PLAN).exists():
            return []
        manifest = Manifest.read(self.folder)
        return [manifest.run(planned) for planned in manifest.runs]

    def unfinished(self) -> list[str]:
        """The names of the runs that are not done. Seals the others."""
        left = []
        for run in self.planned():
            state = None
            with suppress(RunError):
                state = run.state
            if state in FINISHED:
                self.sealed.setdefault(run.path.name, signature(run))
            else:
                left.append(run.path.name)
        return left

    def finished(self) -> bool:
        return bool(self.planned()) and not self.unfinished()

    def changed(self) -> list[str]:
        """Done runs that somebody wrote to after they were done."""
        return [run.path.name for run in self.planned() if signature(run) != self.sealed.get(run.path.name)]

    def owners(self) -> dict[int, Run]:
        """The living process that holds each run."""
        found = {}
        for run in self.planned():
            held = Held.read(run.path / LOCK)
            if held and held.owner and held.owner.lives():
                found[held.owner.pid] = run
        return found

    def writing(self) -> list[Path]:
        """The folders of runs of which a checkpoint is being written at this moment."""
        return [path.parent.parent for path in self.folder.glob("*/checkpoints/*.part")]

    def stage(self, pid: int) -> str:
        """What that process is doing."""
        run = self.owners().get(pid)
        if run is None:
            return "start-up"
        if run.path in self.writing():
            return "writing"
        if not (run.path / "checkpoints").exists():
            return "building"
        with suppress(RunError):
            if any(record["step"] == run.status["steps"] for record in run.metrics()):
                return "scoring"
        return "training"


def signature(run: Run) -> tuple[int, ...]:
    names = ("status.json", "results.csv", "metrics.jsonl", "checkpoints/last.ckpt", "checkpoints/best.ckpt")
    return tuple((run.path / name).stat().st_mtime_ns for name in names)
