"""Non-dominated sorting of (FID, CLIP) pairs: the order behind every rank."""

from collections.abc import Sequence

import moocore
import numpy as np


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
