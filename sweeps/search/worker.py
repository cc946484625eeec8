"""One worker of a search: takes trials, has them judged, tells; until as many as were wanted have a result."""

import sys
import time
import traceback
from collections.abc import Mapping, Sequence

from optuna.trial import Trial
from rich.console import Console

from flowzoo.runs.refusal import one_line
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import RunError
from sweeps.search.objective import Busy, Objective, Verdict, judged_by
from sweeps.search.queue import ATTEMPTS, Queue
from sweeps.search.table import counted

WAIT = 2.0  # seconds between two looks at a queue whose rest is in other hands


def work(queue: Queue, objective: Objective) -> int:
    """Returns the exit code: 0 once all is done, 1 after a failure, 130 when interrupted.

    What it holds then, the queue has back when it is closed.
    """
    try:
        return shielded(_work)(queue, objective)
    except KeyboardInterrupt:
        print("sweeps search: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except RunError as error:
        print(f"sweeps search: {one_line(error)}; the same command goes on from here", file=sys.stderr)
        return 1


def _work(queue: Queue, objective: Objective) -> int:
    console = Console(soft_wrap=True, highlight=False)
    failures = 0  # in a row
    while failures <= ATTEMPTS:  # one bad trial is given up before; more than one is no trial's fault
        taken = queue.take(objective.batch)
        if not taken:
            if queue.over():
                return 0
            stoppable(time.sleep)(WAIT)
            continue
        try:
            judged = stoppable(objective.judge)([trial.params for trial in taken])
            verdicts = [judged_by(verdict, queue.study.objectives) for verdict in judged]
        except Busy:
            queue.give_back(taken)
            stoppable(time.sleep)(WAIT)
            continue
        except RunError:
            raise
        except Exception as error:
            failures += 1
            traceback.print_exc()
            queue.give_back(taken, failure=f"{type(error).__name__}: {error}")
            continue
        queue.tell(taken, verdicts)
        _say(console, queue, taken, verdicts)
        failures = 0
    print(f"sweeps search: {failures} failures in a row; the same command goes on from here", file=sys.stderr)
    return 1


def _say(console: Console, queue: Queue, trials: Sequence[Trial], verdicts: Sequence[Verdict]) -> None:
    done = counted(queue.all())
    for trial, verdict in zip(trials, verdicts, strict=True):
        told = _named(verdict.scores) if verdict.scores else verdict.ended
        console.print(
            f"[{done}/{queue.study.n_trials}] trial {trial.number}  {_named(trial.params)}  {told}", markup=False
        )


def _named(numbers: Mapping[str, float | None]) -> str:
    return "  ".join(f"{name}={value:.4g}" for name, value in numbers.items())
