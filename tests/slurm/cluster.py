"""A real SLURM of one node with accounting, for tests: up.sh and down.sh, and waiting for what a job should come to."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).parent
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL")

PATIENCE = 1200.0  # seconds after which what a test waits for hangs, on however busy a machine

T = TypeVar("T")


class Unavailable(Exception):
    """SLURM cannot be brought up here; the message says why."""


def up(folder: Path, **settings: object) -> None:
    """Brings SLURM up in `folder`, whose path is short, installed where it is missing. This process can use it then.

    `settings` are the variables of up.sh without SLURM_: cpus=8, killwait=5, grace=10, port=16817.
    Raises Unavailable.
    """
    if os.geteuid() != 0:
        raise Unavailable("SLURM's daemons need root")
    env = os.environ | {"SLURM_DIR": str(folder), **{f"SLURM_{k.upper()}": str(v) for k, v in settings.items()}}
    try:
        done = subprocess.run([HERE / "up.sh"], env=env, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise Unavailable("SLURM did not come up in ten minutes") from None
    if done.returncode:
        raise Unavailable((done.stderr or done.stdout).strip()[-2000:])
    os.environ["SLURM_CONF"] = f"{folder}/etc/slurm.conf"


def down(folder: Path) -> None:
    subprocess.run([HERE / "down.sh"], env=os.environ | {"SLURM_DIR": str(folder)}, check=True, capture_output=True)
    os.environ.pop("SLURM_CONF", None)


def slurm(*command: str) -> str:
    """What a command of SLURM's prints; raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def accounted(job: str) -> tuple[str, str]:
    """State and exit code that sacct gives for a job, e.g. ("FAILED", "1:0"); empty where it does not know it yet."""
    lines = slurm("sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", job).splitlines()
    for id, state, code in (line.split("|") for line in lines):
        if id == job:
            return state.split()[0], code
    return "", ""


def wait_for(what: str, look: Callable[[], T], timeout: float = PATIENCE) -> T:
    """What `look` returns as soon as that is true. Raises TimeoutError that names `what`."""
    end = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not in {timeout:.0f} s")
        time.sleep(0.2)
    return found


def ended(job: str, timeout: float = PATIENCE) -> tuple[str, str]:
    """State and exit code of a job, once it is over."""
    return wait_for(f"the end of job {job}", lambda: (a := accounted(job))[0] in ENDED and a, timeout)
