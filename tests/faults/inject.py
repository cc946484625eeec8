"""python tests/faults/inject.py local|stacked|slurm [--moments 50] [--seed 0]: a sweep is hit at random moments.

Twelve small runs are trained undisturbed first. Then the same sweep is trained in another folder and hit; whatever that
ends is begun again by the same command. Where it comes to its end before the last strike it is compared, and another
folder is begun. Exit code 0: every run of every folder is done once and equals its undisturbed twin, and nothing is
corrupt.
"""

import io
import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from local import FAULTS, ROOT, Fault, Local
from rich.console import Console
from rich.table import Table
from twin import differences, soundness
from victim import Victim

from sweeps.__main__ import main as sweeps

WANTED = (None, None, "training", "writing", "scoring")  # two in five strikes come whatever there is to be hit
PATIENCE = 600.0  # seconds in which an undisturbed command must come to its end


@dataclass(frozen=True)
class Strike:
    fault: str
    stage: str
    folder: int
    run: str
    at: float  # seconds since the beginning


@dataclass(frozen=True)
class Kind:
    """What is hit: the words of a command, what gives it, and what hits it."""

    words: tuple[str, ...] = ()
    engine: type[Local] = Local
    faults: tuple[Fault, ...] = FAULTS
    around: Callable[[], AbstractContextManager[None]] = nullcontext


def kinds() -> dict[str, Callable[[], Kind]]:
    def slurm() -> Kind:
        import on_slurm

        return Kind(("cluster.parallel=2",), on_slurm.Slurm, on_slurm.FAULTS, on_slurm.brought_up)

    return {"local": Kind, "stacked": lambda: Kind(("engine=stacked",)), "slurm": slurm}


class Injection:
    def __init__(self, kind: Kind, words: Sequence[str], place: Path, rng: Random, span: float) -> None:
        self.kind, self.words, self.place, self.rng = kind, [*words, *kind.words], place, rng
        self.span = span
        self.console = Console(soft_wrap=True, highlight=False)
        self.start = time.monotonic()
        self.strikes: list[Strike] = []
        self.problems: list[str] = []
        self.ended: Counter[int] = Counter()
        self.folders = 0
        self.commands = 0
        self.by_hand = 0
        self.attempts = 0
        self.repaired = 0
        self.deck: list[Fault] = []

    def reference(self) -> None:
        """The undisturbed sweep, by the engine that is going to be hit."""
        self.twin = self._victim("undisturbed")
        self._say("training the undisturbed sweep")
        engine = self.kind.engine(self.twin, self.place / "undisturbed.log")
        try:
            self._finish(engine, 1)
        finally:
            engine.close()

    def hit(self, moments: int) -> None:
        while len(self.strikes) < moments:
            self.folders += 1
            victim = self._victim(f"hit{self.folders}")
            engine = self.kind.engine(victim, self.place / f"hit{self.folders}.log")
            before = len(self.strikes)
            try:
                while len(self.strikes) < moments and not victim.finished():
                    self._hit_once(engine)
                self._finish(engine, 10)
                self._compare(victim, len(self.strikes) - before)
            finally:
                engine.running()
                self.ended.update(engine.ended)
                self.commands += engine.commands
                self.by_hand += engine.by_hand
                engine.close()

    def _victim(self, name: str) -> Victim:
        return Victim(self.place / name, self.words)

    def _hit_once(self, engine: Local) -> None:
        engine.go_on()
        victim = engine.victim
        wanted = self.rng.choice(WANTED)
        self._wait(engine, self.rng.uniform(0, self.span if wanted is None else self.span / 3))
        worker = self._worker(engine, wanted)
        if worker is None:
            return
        if not self.deck:
            self.deck = self.rng.sample(self.kind.faults, len(self.kind.faults))
        fault = self.deck.pop()
        owned = victim.owners().get(worker)
        stage = victim.stage(worker)
        if not fault.strike(engine, worker, self.rng):
            self.deck.insert(0, fault)
            self._say(f"{fault.name}: nothing to hit")
            return
        at = round(time.monotonic() - self.start, 1)
        self.strikes.append(Strike(fault.name, stage, self.folders, owned.path.name if owned else "", at))
        self._say(f"{len(self.strikes)}: {fault.name}, {stage} {self.strikes[-1].run}")

    def _wait(self, engine: Local, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and engine.running():
            time.sleep(engine.poll)

    def _worker(self, engine: Local, stage: str | None) -> int | None:
        """A worker, at this stage where one comes to it in time; None where there is none."""
        end = time.monotonic() + self.span
        while stage is not None and time.monotonic() < end and (workers := engine.workers()):
            for worker in self.rng.sample(workers, len(workers)):
                if engine.victim.stage(worker) == stage:
                    return worker
            time.sleep(0.002)
        workers = engine.workers()
        return self.rng.choice(workers) if workers and engine.running() else None

    def _finish(self, engine: Local, commands: int) -> None:
        """The same command, until nothing is left to do; undisturbed it needs few."""
        end = time.monotonic() + PATIENCE
        given = engine.commands + commands
        while engine.running() or not engine.victim.finished():
            if engine.commands < given:
                engine.go_on()
            elif not engine.running() and (left := engine.victim.unfinished()):  # it may have ended just now
                raise SystemExit(f"{commands} commands did not end {', '.join(left)}")
            engine.victim.unfinished()
            if time.monotonic() > end:
                raise SystemExit(f"not in {PATIENCE:.0f} s: {', '.join(engine.victim.unfinished())}")
            time.sleep(max(0.2, engine.poll))

    def _compare(self, victim: Victim, strikes: int) -> None:
        found = [f"{name}: written to after it was done" for name in victim.changed()]
        for run, twin in zip(victim.planned(), self.twin.planned(), strict=True):
            found += soundness(run, strikes) + differences(run, twin)
            self.attempts += run.status["attempt"]
        # what killed processes leave beside files is named, and removed on demand
        check = ["check", str(victim.folder), "--deep"]
        with redirect_stdout(io.StringIO()) as repaired:
            sweeps([*check, "--repair", "--json"])
        self.repaired += len(json.loads(repaired.getvalue())["problems"])
        with redirect_stdout(io.StringIO()) as checked, redirect_stderr(checked):
            code = sweeps(check)
        if code:
            found.append(f"sweeps check: {checked.getvalue()}")
        self.problems += [f"folder {self.folders}: {words}" for words in found]
        self._say(f"folder {self.folders} after {strikes} strikes: {len(found) or 'no'} problems")
        for words in found:
            self._say(f"    {words}")

    def report(self) -> dict[str, object]:
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(time.monotonic() - self.start),
            "folders": self.folders,
            "commands": self.commands,
            "by hand": self.by_hand,
            "attempts": self.attempts,
            "repaired": self.repaired,
            "exit codes": {str(code): n for code, n in sorted(self.ended.items())},
            "strikes": [asdict(strike) for strike in self.strikes],
            "problems": self.problems,
        }

    def show(self) -> None:
        stages = sorted({strike.stage for strike in self.strikes})
        table = Table("fault", "struck", *stages)
        for fault in self.kind.faults:
            hits = Counter(strike.stage for strike in self.strikes if strike.fault == fault.name)
            table.add_row(fault.name, str(hits.total()), *(str(hits[stage] or "") for stage in stages))
        self.console.print(table)
        counts = f"{len(self.strikes)} strikes, {self.commands} commands, {self.by_hand} times by hand"
        self._say(f"{counts}, {len(self.problems)} problems")

    def _say(self, line: str) -> None:
        self.console.print(f"{time.monotonic() - self.start:6.1f} s  {line}", markup=False)


def main() -> int:
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=kinds())
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--span",
        type=float,
        default=24,
        metavar="SECONDS",
        help="from one strike to the next, at most: a start takes less",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="all of it as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the sweeps stay; removed by default")
    parser.add_argument("words", nargs="*", metavar="key=value", help="for the sweep: seeds=1, trainer.steps=60")
    args = parser.parse_intermixed_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums of several threads may differ in the last bit
    kind = kinds()[args.kind]()
    with kind.around(), tempfile.TemporaryDirectory() as place:
        injection = Injection(kind, args.words, (args.keep or Path(place)).resolve(), Random(args.seed), args.span)
        injection.place.mkdir(parents=True, exist_ok=True)
        injection.reference()
        injection.hit(args.moments)
    injection.show()
    if args.report:
        report = {"kind": args.kind, "seed": args.seed, "words": args.words, **injection.report()}
        args.report.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if injection.problems else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests" / "slurm"))
    sys.exit(main())
