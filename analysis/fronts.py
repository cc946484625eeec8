"""Non-dominated sorting of (FID, CLIP) pairs: the order behind every rank."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray


def fronts(fid: Sequence[float], clip: Sequence[float]) -> list[int]:
    """Front of each point, 1 = Pareto-optimal, for FID minimised and CLIP maximised (paper sec. 5.1).

    Args:
        fid, clip: finite numbers, one pair a variant. Pairs equal in both share a front.

    Returns:
        One front a pair, in the order given; fronts are numbered 1, 2, ... without gaps.

    Raises:
        ValueError: the lengths differ, or a number is not finite (non-dominated sorting would call NaN optimal).
    """
    if len(fid) != len(clip):
        raise ValueError(f"fid and clip must pair up: got {len(fid)} and {len(clip)} numbers")
    points = np.column_stack([np.asarray(fid, dtype=float), np.asarray(clip, dtype=float)])
    if not np.isfinite(points).all():
        fid_bad, clip_bad = points[~np.isfinite(points).all(axis=1)][0]
        raise ValueError(f"only finite pairs can be sorted: got fid {fid_bad}, clip {clip_bad}")
    if len(points) == 0:
        return []
    # moocore counts fronts from 0
    return [int(front) + 1 for front in moocore.pareto_rank(points, maximise=[False, True])]


def fronts_of_many(fid: NDArray[np.float64], clip: NDArray[np.float64]) -> NDArray[np.int64]:
    """`fronts` of many clouds at once: finite [R, V] numbers, V points in each of R clouds, to [R, V] fronts.

    For thousands of small clouds, where a call of moocore each would take seconds.
    """
    clouds, points = fid.shape
    order = np.lexsort((-clip, fid), axis=-1)  # by FID; at a tie the better CLIP first
    fid, clip = np.take_along_axis(fid, order, -1), np.take_along_axis(clip, order, -1)
    front = np.zeros((clouds, points), dtype=np.int64)
    top = np.full((clouds, points), -np.inf)  # the best CLIP of each front so far; it falls from front to front
    rows, used = np.arange(clouds), 0
    for i in range(points):
        # A front whose best CLIP reaches the point's dominates it, as none of its points has a larger FID.
        place = (top[:, :used] >= clip[:, i, None]).sum(-1)
        if i:
            twin = (fid[:, i] == fid[:, i - 1]) & (clip[:, i] == clip[:, i - 1])
            place = np.where(twin, front[:, i - 1], place)
        front[:, i] = place
        top[rows, place] = np.maximum(top[rows, place], clip[:, i])
        used = max(used, int(place.max()) + 1)
    out = np.empty_like(front)
    np.put_along_axis(out, order, front + 1, -1)
    return out
