"""The Frechet distance of two sets of given features, beside torch-fidelity and torchmetrics.

Correlated normal features, once with a covariance of condition 10 (`flat`), once with eigenvalues that fall as 1/k, as
those of image features do (`falling`). Everything from features to distance is timed, then flowzoo's two parts alone.
With --device cuda the features lie on the GPU, as an extractor leaves them.
"""

import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from flowzoo.bench.report import Report, machine, spread, version_of
from flowzoo.bench.size import configure_peers, peers_of
from flowzoo.runs.arguments import above_zero, positive

if TYPE_CHECKING:
    from torch import Tensor

    from flowzoo.metrics.moments import Moments

PEERS = ("torch-fidelity", "torchmetrics")  # packages
SPECTRA: dict[str, Callable[[int, int], float]] = {
    "flat": lambda k, dim: 1 - 0.9 * k / dim,
    "falling": lambda k, dim: 1 / (k + 1),
}


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--samples", type=positive, default=50_000, help="of each set; more than --dim")
    parser.add_argument("--dim", type=positive, default=768, help="of the features")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--repeats", type=positive, default=5, help="that count; one more is for warming up")
    parser.add_argument(
        "--seconds", type=above_zero, default=60.0, help="no further repeat of a measurement after so many"
    )
    configure_peers(parser, PEERS)


def measure(args: Namespace, report: Report) -> int:
    peers = peers_of(args, PEERS)
    if args.samples <= args.dim:
        raise ValueError(f"--samples {args.samples}: allowed is more than --dim {args.dim}")

    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU here; allowed are auto and cpu")
    from flowzoo.bench.measure import card
    from flowzoo.bench.stopwatch import synchronize
    from flowzoo.metrics.fid import frechet_distance

    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    report.about = {**machine(), **card(device), "threads": torch.get_num_threads()}
    report.about |= {package: version_of(package) for package in ("numpy", *PEERS)}

    def timed(work: Callable[..., Any], *given: Any, **what: Any) -> tuple[float, Any]:
        """Median of the seconds, and the value; a first call warms up."""
        value = work(*given)
        laps: list[float] = []
        while len(laps) < args.repeats and sum(laps) < args.seconds:
            synchronize(device)
            start = time.perf_counter()
            value = work(*given)
            synchronize(device)
            laps.append(time.perf_counter() - start)
        shown = {"fid": value} if isinstance(value, float) else {}
        report.line(**what, **spread(laps), **shown)
        return statistics.median(laps), value

    for spectrum, eigenvalue in SPECTRA.items():
        pair = [made_up(args.samples, args.dim, eigenvalue, seed).to(device) for seed in (0, 1)]
        seconds, fid = timed(ours, *pair, measure="ours", spectrum=spectrum)
        _, one = timed(moments, pair[0], measure="moments of one set", spectrum=spectrum)
        timed(frechet_distance, one, moments(pair[1]), measure="distance of moments", spectrum=spectrum)
        for peer in peers:
            if find_spec(peer.replace("-", "_")) is None:
                report.skipped(peer, "not installed")
                continue
            with report.measuring(peer=peer, spectrum=spectrum):
                theirs, value = timed(THEIRS[peer], *pair, peer=peer, spectrum=spectrum)
                told = {"ours/" + peer: round(theirs / seconds, 3), "relative_difference": abs(fid / value - 1)}
                report.line(ratios=told, spectrum=spectrum)
    return 1 if report.failed else 0


def made_up(samples: int, dim: int, eigenvalue: Callable[[int, int], float], seed: int) -> "Tensor":
    """Features [samples, dim], float32; another seed's have another mean and other principal directions."""
    import torch

    gen = torch.Generator().manual_seed(seed)
    own = torch.linalg.qr(torch.randn(dim, dim, generator=gen, dtype=torch.float64)).Q
    deviations = torch.tensor([eigenvalue(k, dim) for k in range(dim)], dtype=torch.float64).sqrt()
    mix = (deviations[:, None] * own).float()  # rows: directions
    return torch.randn(samples, dim, generator=gen) @ mix + 0.1 * torch.randn(dim, generator=gen)


def moments(x: "Tensor") -> "Moments":
    from flowzoo.metrics.moments import Moments

    return Moments(x.shape[1]).update(x)


def ours(one: "Tensor", other: "Tensor") -> float:
    from flowzoo.metrics.fid import frechet_distance

    return frechet_distance(moments(one), moments(other))


def torch_fidelity(one: "Tensor", other: "Tensor") -> float:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    both = (fid_features_to_statistics(x.cpu()) for x in (one, other))
    return fid_statistics_to_metric(*both, verbose=False)[KEY_METRIC_FID]


def torchmetrics(one: "Tensor", other: "Tensor") -> float:
    from torch import nn
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = nn.Identity()
    given.num_features = one.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=given).to(one.device)
    metric.update(one, real=True)
    metric.update(other, real=False)
    return float(metric.compute())


THEIRS = {"torch-fidelity": torch_fidelity, "torchmetrics": torchmetrics}
