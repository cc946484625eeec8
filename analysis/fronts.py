"""Non-dominated sorting: the order behind every rank. All is in costs, of which less is better."""

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALL = 64  # points of a cloud, up to which many clouds are sorted faster at once than each by moocore


def fronts(costs: ArrayLike) -> list[int]:
    """Front of each point, 1 = Pareto-optimal (paper sec. 5.1).

    Args:
        costs: finite numbers [n, M], of n points in M objectives that are all minimised. Equal points share a front.

    Returns:
        One front a point, in the order given; fronts are numbered 1, 2, ... without gaps.

    Raises:
        ValueError: a number is not finite (non-dominated sorting would call NaN optimal).
    """
    points = np.asarray(costs, dtype=float)
    if points.size == 0:
        return []
    if not np.isfinite(points).all():
        raise ValueError(f"only finite points can be sorted: got {points[~np.isfinite(points).all(1)][0].tolist()}")
    # moocore counts fronts from 0
    return [int(front) + 1 for front in moocore.pareto_rank(points)]


def fronts_of_many(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """`fronts` of R clouds of V points in M objectives at once: finite [R, V, M] to [R, V]."""
    points = costs.shape[1]
    if points > SMALL:
        return np.stack([moocore.pareto_rank(cloud) for cloud in costs]).astype(np.int64) + 1
    # In the order of the first objective, at a tie of the next, none dominates one before it.
    order = np.lexsort(np.moveaxis(costs, -1, 0)[::-1], axis=-1)
    costs = np.take_along_axis(costs, order[..., None], 1)
    front = np.ones(costs.shape[:2], dtype=np.int64)
    for i in range(1, points):
        before, own = costs[:, :i, 1:], costs[:, i, None, 1:]
        behind = np.where((before <= own).all(-1), front[:, :i], 0).max(1) + 1
        is_twin = (costs[:, i] == costs[:, i - 1]).all(-1)
        front[:, i] = np.where(is_twin, front[:, i - 1], behind)
    out = np.empty_like(front)
    np.put_along_axis(out, order, front, -1)
    return out
