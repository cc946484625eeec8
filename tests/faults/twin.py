"""Whether a run that was disturbed is the one that was not: weights, EMA, optimiser state, records, scores, images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowzoo.runs.layout import SETTING
from flowzoo.runs.store import Run

TIMES = ("images_per_s", "loader_wait", "seconds")


def differences(run: Run, twin: Run) -> list[str]:
    """One line each, by how much of the largest number beside it."""
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(each.path / "checkpoints" / name, weights_only=True) for each in (run, twin))
        found += [(f"{name} {key}", by) for key, by in apart(one, other)]
    found += [(f"metrics.jsonl {key}", by) for key, by in apart(_untimed(run.metrics()), _untimed(twin.metrics()))]
    found += [(f"results.csv {key}", by) for key, by in apart(_untimed(run.rows()), _untimed(twin.rows()))]
    worst: dict[str, float] = {}
    for key, by in found:
        worst[key] = max(by, worst.get(key, 0.0))
    lines = [f"{run.path.name}: {key} by {by:.1e}" for key, by in worst.items()]
    for path in sorted((twin.path / "samples").iterdir()):
        if (run.path / "samples" / path.name).read_bytes() != path.read_bytes():
            lines.append(f"{run.path.name}: samples/{path.name}")
    return lines


def soundness(run: Run, strikes: int) -> list[str]:
    """What is wrong with a run by itself, after so many strikes on its sweep."""
    status, rows = run.status, run.rows()
    wrong = []
    if status["state"] != "done" or status["step"] != status["steps"]:
        wrong.append(f"{status['state']} at step {status['step']} of {status['steps']}")
    if not 1 <= status["attempt"] <= 1 + strikes:
        wrong.append(f"attempt {status['attempt']} after {strikes} strikes")
    if len({tuple(row[key] for key in SETTING) for row in rows}) != len(rows):
        wrong.append("a setting has several rows")
    for kind in ("train_loss", "val_loss_ema"):
        steps = [record["step"] for record in run.metrics() if kind in record]
        if steps != sorted(set(steps)):
            wrong.append(f"steps of {kind} are not strictly increasing")
    return [f"{run.path.name}: {words}" for words in wrong]


def _untimed(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def apart(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The leaves that differ, and by how much of the largest of their numbers; inf where they cannot be compared."""
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape and one.dtype == other.dtype:
        if not one.equal(other):
            by = (one.double() - other.double()).abs().max() / other.double().abs().max()
            yield key, by.item()
    elif isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        for name in one:
            yield from apart(one[name], other[name], f"{key}.{name}" if key else str(name))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for a, b in zip(one, other, strict=True):
            yield from apart(a, b, key)
    elif isinstance(one, float) and isinstance(other, float):
        if one != other:
            yield key, abs(one - other) / max(abs(one), abs(other))
    elif isinstance(one, Tensor) or isinstance(other, Tensor) or type(one) is not type(other) or one != other:
        yield key, float("inf")
