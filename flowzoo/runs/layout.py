"""What run folders and sweep folders hold, by name: files, states and columns. Shared by who writes and who reads."""

import os
from pathlib import Path

# A run folder.
CONFIG, STATUS, METRICS, RESULTS = "config.yaml", "status.json", "metrics.jsonl", "results.csv"
DATA = "data.json"  # size and channels of the training images, and their fingerprint
AUTOENCODER = "autoencoder.safetensors"  # statistics of the latents, and what was fitted to the training images
# A sweep's folder: the plan of a sweep, the trials of a search; the page of a report, in whatever folder it was made.
PLAN, TRIALS, REPORT = "plan.jsonl", "trials.csv", "report.html"
SEARCH = "study.json"  # the study's name in its storage, and its objectives
# The columns of trials.csv: between the two a score an objective, after them a column a parameter.
TRIAL_START, TRIAL_END = ("number", "state"), ("run", "started", "finished")

STATES = ("queued", "running", "done", "failed", "preempted", "diverged", "stopped")  # what status.json may say
FINISHED = ("done", "diverged")  # diverged is a result: the same run would diverge again
ENDED = ("done", "failed", "preempted", "diverged", "stopped")
# What a reader may find besides: running without a living owner, unreadable, and without status, rows or plan.
ALL_STATES = (*STATES, "lost", "damaged", "missing")

# The columns of results.csv in their order, with what a cell holds. Every other column is a metric, a number; these
# stand between the two parts.
BEFORE_METRICS: dict[str, type] = {
    **{"run": str, "variant": str, "dataset": str, "backbone": str, "seed": int, "step": int, "weights": str},
    **{"rule": str, "grid": str, "shift": float, "steps": int, "guidance": float, "nfe": int, "n_samples": int},
}
AFTER_METRICS: dict[str, type] = {
    **{"path_length": float, "seconds": float, "status": str, "protocol": str},
    "data": str,  # the beginning of the training images' fingerprint
}
COLUMNS = BEFORE_METRICS | AFTER_METRICS
# What a table of raw rows (runs/table.py) has besides: what the files of a run say, the same in all of its rows.
RUN_COLUMNS = ("representation", "latents", "code_version", "gpu", "started", "finished")
SETTING = ("dataset", "backbone", "weights", "rule", "grid", "shift", "steps", "guidance", "protocol", "data")

DIRECTIONS = ("min", "max")  # which values of a metric are better
OBJECTIVES = {
    "fid": "min",
    "clip": "max",
}  # what variants are ranked and searched by unless others are named


def place_of(folder: Path) -> dict[str, str]:
    """The config keys `runs` and `sweep` of the runs in a sweep's folder: where it lies, whatever was stored before."""
    folder = absolute(folder)
    return {"runs": str(folder.parent), "sweep": folder.name}


def absolute(folder: Path) -> Path:
    """A folder by a path that ends in its own name, as `.` and `..` do not."""
    return Path(os.path.abspath(folder)) if folder.name in ("", "..") else folder
