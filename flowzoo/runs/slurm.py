"""Questions to SLURM's commands. No answer is an error of its own: it never reads as an answer that is empty."""

import os
import subprocess
import time

from flowzoo.runs.files import RunError

PATIENCE = 30.0  # seconds that a command has to answer
SILENCE = 60.0  # seconds without further questions of `has_processes` after one that was not answered
EARLY = 60  # seconds before it is due at which SLURM's notice may come (sbatch --signal)

# A user's own defaults of these commands would filter what they print.
_DEFAULTS = ("SQUEUE_", "SACCT_", "SCANCEL_")


class NoAnswer(RunError):
    """A command of SLURM is not here, failed, or did not end in time, so nothing is known."""


def ask(*command: str) -> str:
    """What a command prints. Raises NoAnswer."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(_DEFAULTS)}
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} does not answer: it had {PATIENCE:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{command[0]} does not answer: {error.strerror}") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise NoAnswer(f"{command[0]} does not answer: exit code {done.returncode}{said and f', {said}'}")
    return done.stdout


def check_notice(limit_key: str, minutes: int, notice_key: str, seconds: int) -> None:
    """Raises ValueError for a job that would be told to stop as soon as it starts, and so for ever if it is requeued.

    SLURM's notice may come a minute before it is due.
    """
    if 60 * minutes <= seconds + EARLY:
        raise ValueError(
            f"{notice_key}={seconds} with {limit_key}={minutes}: a job would be told to stop as soon as it starts; "
            f"allowed with this notice is {limit_key} of at least {(seconds + EARLY) // 60 + 1}"
        )


_silent_until = 0.0


def has_processes(job: str) -> bool | None:
    """Whether SLURM runs the job now; one that waits (again) has no process. None where SLURM does not answer.

    Many locks may be asked about in a row: after one question without an answer the next ones are not asked at once.
    """
    global _silent_until
    if time.monotonic() < _silent_until:
        return None
    try:
        states = ask("squeue", "--noheader", f"--jobs={job}", "--format=%T").split()
    except NoAnswer as error:
        if "Invalid job id" in str(error):  # of a job that ended some time ago
            return False
        _silent_until = time.monotonic() + SILENCE
        return None
    return bool(set(states) - {"PENDING"})
