"""Where a step's time goes: the device's kernels, or on a CPU torch's operators, each with its own time."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from flowzoo import captured
from flowzoo.bench.stopwatch import synchronize

WARM_UPS = captured.WARM_UPS + 3  # a captured step is a graph by then
NAME = 160  # characters of a kernel's name that are told


def profiled(step: Callable[[], object], device: torch.device, steps: int, top: int) -> dict[str, Any]:
    """`ms` of a step in all, of its `top` longest kernels by name, and `rest_ms`; times are sums over their calls.

    Kernels that run side by side count each, so that `ms` may exceed a step's time. Times of a CPU's operators are
    without those that they call.
    """
    gpu = device.type == "cuda"
    for _ in range(WARM_UPS):
        step()
    synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU], acc_events=True) as prof:
        for _ in range(steps):
            step()
        synchronize(device)
    rows = [
        {
            "kernel": event.key[:NAME],
            "ms": (event.self_device_time_total if gpu else event.self_cpu_time_total) / 1000 / steps,
            "calls": event.count / steps,
        }
        for event in prof.key_averages()
    ]
    rows.sort(key=lambda row: -row["ms"])
    total = sum(row["ms"] for row in rows)
    told = [{**row, "ms": round(row["ms"], 4), "share": round(row["ms"] / total, 4)} for row in rows[:top]]
    return {"ms": round(total, 4), "kernels": told, "rest_ms": round(sum(row["ms"] for row in rows[top:]), 4)}
