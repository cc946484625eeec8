"""The same measurement in several processes at once, which start counting together."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from threading import BrokenBarrierError
from typing import Any

from flowzoo.sockets import keep_socket_paths_short

PATIENCE = 900.0  # seconds to wait for the others to warm up


def together(task: Callable[..., float], jobs: Sequence[tuple[Any, ...]], gpus: Sequence[str | None]) -> list[float]:
    """`task(ready, *job)` of every job in a process of its own with a GPU of its own; None: whatever there is.

    A task calls `ready()` when it is warm, which returns once all are. Raises what the first of them raised.
    """
    keep_socket_paths_short()
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(jobs), mp_context=context) as pool:
        barrier = manager.Barrier(len(jobs))
        made = [pool.submit(_task, barrier, gpu, task, job) for job, gpu in zip(jobs, gpus, strict=True)]
        errors = [error for one in made if (error := one.exception()) is not None]
        for error in sorted(errors, key=lambda e: isinstance(e, BrokenBarrierError)):
            raise error
        return [one.result() for one in made]


def _task(barrier: Any, gpu: str | None, task: Callable[..., float], job: tuple[Any, ...]) -> float:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before this process first asks for a GPU
    try:
        return task(lambda: barrier.wait(PATIENCE), *job)
    except BaseException:
        barrier.abort()  # or the others would wait for this one
        raise


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be told, one a GPU."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
