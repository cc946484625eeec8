"""An objective that needs no training: FID and CLIP score as a formula of lognorm's m and s, with a known front."""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from flowzoo.formulation.declared import SAMPLERS
from sweeps.search.objective import Verdict

BEST_FID, BEST_CLIP = (0.0, 1.0), (0.5, 0.6)  # m, s of the paper's best by FID and by CLIP score, roughly


class Toy:
    """FID and CLIP score fall off with the squared distance of (m, ln s) from the best of each.

    Two such bowls have the straight line between their centres as their Pareto set, so the front is known.
    """

    batch = 1

    def __init__(self, sweep: str, words: Sequence[str] = (), seconds: float = 0.0) -> None:
        if others := [word for word in words if word.split("=")[0] not in ("runs", "sweep")]:
            raise ValueError(f"{others[0]}: the toy trains nothing; allowed are runs=, sweep=, n_trials= and storage=")
        self.seconds = seconds

    def check(self, low: Mapping[str, float], high: Mapping[str, float]) -> None:
        for ends in (low, high):
            if set(ends) != {"sampler.m", "sampler.s"}:
                raise ValueError(f"parameters {', '.join(ends)}: the toy takes sampler.m and sampler.s")
            for key, value in ends.items():
                SAMPLERS["LogitNormal"].check(key.removeprefix("sampler."), value)

    def described(self) -> Mapping[str, object]:
        return {}

    def judge(self, asked: Sequence[Mapping[str, float]]) -> list[Verdict]:
        time.sleep(self.seconds)
        points = [scores(one["sampler.m"], math.log(one["sampler.s"])) for one in asked]
        return [Verdict({"fid": fid, "clip": clip}) for fid, clip in points]


def scores(m: float, log_s: float) -> tuple[float, float]:
    """FID and CLIP score at (m, ln s)."""

    def off(m_best: float, s_best: float) -> float:
        return (m - m_best) ** 2 + (log_s - math.log(s_best)) ** 2

    return 10 + 20 * off(*BEST_FID), 0.25 - 0.02 * off(*BEST_CLIP)


def front(n: int = 1000) -> np.ndarray:
    """Points of the true front, [n, 2]: FID, CLIP score."""
    (m0, s0), (m1, s1) = BEST_FID, BEST_CLIP
    along = np.linspace(0, 1, n)
    return np.array([scores(m0 + k * (m1 - m0), math.log(s0) + k * math.log(s1 / s0)) for k in along])
