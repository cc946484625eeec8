"""One network, trained by one task in one folder: how the frozen networks behind scores and latents are made."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from torch import Tensor

from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import Diverged, Interrupted, Run, RunError
from flowzoo.training.checkpoint import LAST, last_step, read_weights, set_preempted
from flowzoo.training.fit import train_program
from flowzoo.training.loop import Loop
from flowzoo.training.program import Program

T = TypeVar("T")


@shielded
def train_single(
    run: Run,
    config: Mapping[str, Any],
    loop: Loop,
    program: Callable[[], Program],
    finish: Callable[[Mapping[str, Tensor]], T],
) -> T:
    """Trains to the last step, from wherever an earlier attempt left the run, and returns finish(its last weights).

    They are the average of the weights where the program keeps one, else the weights themselves.
    The folder holds what a run's does (docs/design.md): config, status, metrics, checkpoints, lock.
    Raises RunBusy, Interrupted after a signal, once everything is saved, and Diverged.
    """
    run.make(config, run.path.name)
    with run.lock():
        if run.state == "diverged":
            raise Diverged(f"{run.path} diverged at step {run.status['step']}")
        run.set_status("running", steps=loop.steps)
        try:
            result = stoppable(_train)(run, loop, program, finish)
        except (Interrupted, Diverged):
            raise
        except KeyboardInterrupt:
            set_preempted(run)
            raise Interrupted(f"{run.path} stopped; what is saved is kept") from None
        except Exception as error:
            with suppress(RunError):  # a full disk must not hide what happened
                run.set_failed(error)
            raise
        run.set_status("done", step=loop.steps)
        return result


def _train(run: Run, loop: Loop, program: Callable[[], Program], finish: Callable[[Mapping[str, Tensor]], T]) -> T:
    at = last_step(run)
    if at < loop.steps:
        outcome = train_program([run], loop, program(), resume=at > 0)
        if (diverged := outcome.diverged_at[0]) is not None:
            run.set_status("diverged", step=diverged)
            raise Diverged(f"{run.path} diverged at step {diverged}")
        if outcome.interrupted:
            run.set_status("preempted", step=outcome.step)
            raise Interrupted(f"{run.path} stopped at step {outcome.step} of {loop.steps} and is saved")
    state, _ = read_weights(run.path / "checkpoints" / LAST, "ema")
    return finish(state)
