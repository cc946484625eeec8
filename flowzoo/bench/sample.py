"""Scoring of V variants together, raw and EMA, beside one variant after another.

Untrained weights, which cost the same: sampling, decoding, features, their moments, FID, CLIP score and the rows
written to the run folders, by flowzoo.scoring; the peer `solo` is one of them by itself, and `padded`, of
--default-text, all of them with every padding token computed. A network pass is
one image through the network once; guidance other than 0 and 1 takes two a step. Settings of one step come first, for
warming up.
"""

import tempfile
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from flowzoo.bench.report import Report
from flowzoo.bench.size import check_padded, configs, configure_peers, configure_size, peers_of, tokens_of, words_of
from flowzoo.runs.arguments import positive

if TYPE_CHECKING:
    from flowzoo.bench.measure import Measure

PEERS = ("solo", "padded")
PAPER = "50:1,50:2.5,50:5,5:5,10:5,25:5"  # sec. 5.1


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--variants", type=positive, default=8, help="of the paper's 61")
    parser.add_argument("--samples", type=positive, default=2000, help="of each variant in each setting; 65 or more")
    parser.add_argument("--sample-batch", type=positive, default=500, help="evaluation.batch_size")
    parser.add_argument("--settings", type=pairs, default=pairs(PAPER), help=f"steps:guidance,... ({PAPER})")
    configure_size(parser)
    configure_peers(parser, PEERS)
    parser.add_argument(
        "--product", type=positive, help="edge of the matrices of the card's own product (8192 on a GPU)"
    )


def pairs(text: str) -> list[tuple[int, float]]:
    """For argparse: steps:guidance, comma-separated."""
    try:
        made = [(int(steps), float(guidance)) for steps, guidance in (pair.split(":") for pair in text.split(","))]
    except ValueError:
        raise ArgumentTypeError(f"{text}: allowed are pairs like 50:1,25:5") from None
    if any(steps < 2 or guidance < 0 for steps, guidance in made):
        raise ArgumentTypeError(f"{text}: allowed are at least 2 steps and a guidance of at least 0")
    return list(dict.fromkeys(made))


def words(args: Namespace, runs: Path) -> list[str]:
    """One step at each shape that the settings' passes have, to warm up; then the settings."""
    warming = list(dict.fromkeys((1, 1.0 if passes_a_call(guidance) == 1 else 5.0) for _, guidance in args.settings))
    shown = ", ".join(f"{{steps: {steps}, guidance: {guidance}}}" for steps, guidance in [*warming, *args.settings])
    return [
        *words_of(args, runs),
        f"evaluation.samples={args.samples}",
        f"evaluation.batch_size={args.sample_batch}",
        "evaluation.weights=[ema, raw]",
        f"evaluation.settings=[{shown}]",
    ]


def passes_a_call(guidance: float) -> int:
    """With guidance an image goes through the network with its prompt and without."""
    return 1 if guidance in (0, 1) else 2


def rate(bench: "Measure", passes_per_s: float, flops: float | None) -> dict[str, float]:
    """`flops`, those of a pass."""
    return {"passes_per_s": round(passes_per_s, 1), **bench.tflops(passes_per_s, flops)}


def measure(args: Namespace, report: Report) -> int:
    peers = check_padded(args, peers_of(args, PEERS), report)
    with tempfile.TemporaryDirectory() as folder:
        given = words(args, Path(folder))
        cfgs = configs([*given, "sweep=stacked"], args.variants)
        padded = configs([*given, "sweep=padded"], args.variants)
        alone = configs([*given, "sweep=solo"], 1)

        from flowzoo.bench.measure import Measure, forward_flops, peak_gib
        from flowzoo.bench.scored import scored
        from flowzoo.build import loop_of
        from flowzoo.encoders.text import unmerged

        bench = Measure(args, report, loop_of(cfgs[0]).device)
        bench.product()
        flops = None if args.default_text else forward_flops(cfgs[0])
        rates: dict[str, float] = {}
        for name, some in (("stacked", cfgs), ("padded", padded), ("solo", alone)):
            if name != "stacked" and name not in peers:
                continue
            about = {"measure": name, "variants": len(some)}
            with report.measuring(**about):
                seconds: dict[tuple[int, float], float] = defaultdict(float)  # by setting
                passes: dict[tuple[int, float], int] = defaultdict(int)
                with unmerged() if name == "padded" else tokens_of(args):
                    rows = scored(some)
                for row in rows:
                    if row.steps > 1:
                        seconds[row.steps, row.guidance] += row.seconds
                        passes[row.steps, row.guidance] += row.nfe * args.samples * passes_a_call(row.guidance)
                for (steps, guidance), total in seconds.items():
                    report.line(
                        **about,
                        steps=steps,
                        guidance=guidance,
                        ms=round(1000 * total, 2),
                        **rate(bench, passes[steps, guidance] / total, flops),
                    )
                whole = sum(seconds.values())
                images = 2 * len(some) * args.samples * len(seconds) / whole  # raw and EMA
                rates[name] = sum(passes.values()) / whole
                report.line(
                    **about,
                    settings=len(seconds),
                    ms=round(1000 * whole, 2),
                    **rate(bench, rates[name], flops),
                    images_per_s=round(images, 1),
                    peak_memory_gib=peak_gib(bench.device),
                )
            bench.clear()
        if ours := rates.pop("stacked", None):
            report.line(ratios={f"stacked/{name}": round(ours / other, 4) for name, other in rates.items()})
    return 1 if report.failed else 0
