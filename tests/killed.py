"""python killed.py FOLDER word ...: an autoencoder's training is killed at random moments, and once is not.

Each attempt is a fork of this process, which has imported all that takes seconds and trains nothing itself. Says what
differs; exit code 0 where nothing does.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from flowzoo import train_autoencoder
from flowzoo.runs.single import composed
from flowzoo.runs.store import Run
from flowzoo.training import checkpoint

STEPS = 24
WORDS = [f"trainer.steps={STEPS}", "trainer.val_every=8", "trainer.checkpoint_every=3", "trainer.log_every=1"]
KILLS = 3


def begun(words: list[str], output: Path) -> int:
    """The process of an attempt."""
    if pid := os.fork():
        return pid
    code = 99
    try:
        train_autoencoder.run(composed("train_autoencoder", [*words, *WORDS, f"output={output}"]))
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def recorded(folder: Path) -> int:
    """Records of the training in `folder`."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*/metrics.jsonl"))


def main() -> int:
    place, words = Path(sys.argv[1]), sys.argv[2:]
    undisturbed, killed = place / "undisturbed" / "kl.safetensors", place / "killed" / "kl.safetensors"
    for output in (undisturbed, killed):
        output.parent.mkdir()
    _, status = os.waitpid(begun(words, undisturbed), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    draw, kills = random.Random(0), 0
    for number in range(10):
        before = recorded(killed.parent)
        pid, ended, more = begun(words, killed), 0, draw.randint(1, 6)
        while not ended and kills < KILLS:
            time.sleep(0.002)
            ended, status = os.waitpid(pid, os.WNOHANG)
            # a resumed attempt removes the records after its checkpoint before it adds its own
            if not ended and abs(recorded(killed.parent) - before) >= more:
                time.sleep(draw.uniform(0, 0.02))
                os.kill(pid, signal.SIGKILL)
                break
        if not ended:
            _, status = os.waitpid(pid, 0)
        kills += os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        print(f"attempt {number}: {os.waitstatus_to_exitcode(status)}", flush=True)
        if os.waitstatus_to_exitcode(status) == 0:
            break
    one, other = load_file(undisturbed), load_file(killed)
    found = [f"{name} differs" for name in one if not torch.equal(one[name], other[name])]
    folders = [next(iter(output.parent.glob("*/config.yaml"))).parent for output in (undisturbed, killed)]
    last, again = (checkpoint.load(folder / "checkpoints" / "last.ckpt") for folder in folders)
    found += [f"{k} of last.ckpt" for k, x in last["state_dict"].items() if not torch.equal(x, again["state_dict"][k])]
    timed = ("images_per_s", "loader_wait")
    logs = [[{k: v for k, v in r.items() if k not in timed} for r in Run(folder).metrics()] for folder in folders]
    found += ["metrics.jsonl differs"] if logs[0] != logs[1] else []
    found += [f"killed {kills} times"] if kills < 2 else []
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
