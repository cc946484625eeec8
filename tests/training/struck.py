"""python struck.py FOLDER word ...: a short training, alone and as a stack, gets two and three signals in a row.

At random moments, drawn from the seed below. Each attempt is a fork of this process, which has imported all that takes
seconds and trains nothing itself. Says what is not as it should be; exit code 0 where there is nothing.
"""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from flowzoo import train
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.lock import LOCK
from flowzoo.runs.signals import handing_on
from flowzoo.runs.store import FINISHED, Run, attempt
from flowzoo.stacks import run_stacks
from flowzoo.training import checkpoint

WORDS = ["trainer.steps=60", "trainer.val_every=10", "trainer.checkpoint_every=2", "trainer.log_every=1"]
KINDS = {"alone": ["path=rf"], "stack": ["path=rf,v_cos", "trainer=stacked", "stack.processes=1"]}
SIGNALS = [signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
ROUNDS = 2  # hits of each kind, after which it comes to its end undisturbed


def run(cfgs: Sequence[DictConfig]) -> int:
    """As flowzoo.train does it."""
    if "stack" in cfgs[0]:
        return run_stacks(cfgs)
    with suppress(KeyboardInterrupt):
        with handing_on():
            attempt(train.run, cfgs[0])
        return 0
    return 130


def begun(cfgs: Sequence[DictConfig], log: Path) -> int:
    """The process of an attempt, which writes to `log`."""
    if pid := os.fork():
        return pid
    code = 99
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = run(cfgs)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def problems(folder: Path, code: int, said: str, hit: bool) -> list[str]:
    found = []
    if "Traceback" in said or code not in ((0, 130) if hit else (0,)):
        found.append(f"ended with {code}: {said}")
    for run in map(Run, folder.iterdir()):
        allowed = ("done",) if code == 0 else ("queued", "preempted", *FINISHED)
        if run.state not in allowed:
            found.append(f"{run.path} is {run.state} after {code}")
        found += [str(path) for path in run.path.rglob("*") if path.suffix == ".part" or path.name.startswith(".")]
        steps = {path.name: checkpoint.load(path)["global_step"] for path in run.path.glob("checkpoints/*.ckpt")}
        if run.status.get("step", 0) != steps.get("last.ckpt", 0):
            found.append(f"{run.path} says that it is at {run.status.get('step')}: {steps}")
    return found


def struck(cfgs: Sequence[DictConfig], count: int, draw: random.Random, place: Path) -> list[str]:
    folder, found = place / "solo", []
    for number in range(ROUNDS + 1):
        hit, since = number < ROUNDS, ("*/checkpoints/last.ckpt" if number else f"*/{LOCK}")
        pid = begun(cfgs, place / "log")
        ended = 0
        while hit and not ended and not list(folder.glob(since)):
            time.sleep(0.005)
            ended, status = os.waitpid(pid, os.WNOHANG)
        for _ in range(count if hit else 0):
            time.sleep(draw.uniform(0, 1.5) if draw.random() < 0.4 else draw.uniform(0, 0.05))
            if not ended and list(folder.glob(f"*/{LOCK}")):  # before and after that, Python itself listens
                os.kill(pid, draw.choice(SIGNALS))
        if not ended:
            _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        found += problems(folder, code, (place / "log").read_text(), hit and code != 0)
        states = ", ".join(f"{one.state} {one.status.get('step')}" for one in map(Run, folder.iterdir()))
        print(f"{place.name}, attempt {number}: {code}, {states}", flush=True)
    return found


def main() -> int:
    place, words = Path(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    draw = random.Random(0)
    found = []
    for kind, own in KINDS.items():
        for count in (2, 3):
            folder = place / f"{kind}{count}"
            folder.mkdir()
            with config_loader() as loader:
                cfgs = compose_jobs(loader, "train", [*words, *WORDS, *own, f"runs={folder}"], multirun=True)
            found += struck(cfgs, count, draw, folder)
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
