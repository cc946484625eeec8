"""One model: a step of flowzoo's whole training beside bare loops, compilation modes and diffusers.

Ours is the real path, Lightning with data, draws, average, clipping and AdamW, one CUDA graph on a GPU, then the same
module without Lightning. The peers compute in plain torch, without our kernels. `eager` is the real path uncompiled.
The others are the least that trains a network, on one batch that never changes: `plain`, `compiled` and `cudagraphs` of
flowzoo's MM-DiT, and diffusers'.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from flowzoo.bench.report import Report
from flowzoo.bench.size import (
    MODES,
    check_graphs,
    configs,
    configure_ours,
    configure_peers,
    configure_repeats,
    configure_size,
    mode_of,
    peers_of,
    tokens_of,
    words_of,
)

PEERS = ("eager", "plain", "compiled", "cudagraphs", "diffusers", "diffusers-compiled")
OF_PLAIN = {"plain": "eager", "compiled": "compiled", "cudagraphs": "cudagraphs"}
OF_DIFFUSERS = {"diffusers": "eager", "diffusers-compiled": "compiled"}


def configure(parser: ArgumentParser) -> None:
    configure_size(parser)
    configure_repeats(parser)
    configure_ours(parser)
    configure_peers(parser, PEERS)


def measure(args: Namespace, report: Report) -> int:
    peers = peers_of(args, PEERS)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as tokens:
        (cfg,) = configs(words_of(args, Path(folder) / "runs"), 1)

        from flowzoo.backbones import fused
        from flowzoo.bench.measure import Measure, training_flops
        from flowzoo.bench.plain import diffusers_step, flowzoo_step, taking
        from flowzoo.bench.subject import Subject
        from flowzoo.build import jobs_of, loop_of

        tokens.enter_context(tokens_of(args))
        loop = loop_of(cfg)
        device = loop.device
        peers = check_graphs(args, peers, device, report)
        bench = Measure(args, report, device)
        bench.product()
        path = Path(folder) / "bench"
        path.mkdir()
        fresh = lambda: jobs_of([cfg], [path])[0]  # noqa: E731
        flops = None if args.default_text else training_flops(cfg)
        rates: dict[str, float | None] = {}

        def subject_of(name: str, mode: str | None) -> Subject:
            return Subject([cfg], path / name, mode)

        def both(name: str, mode: str | None) -> None:
            subject = subject_of(name, mode)
            for loop, run in (("bare", subject.bare), ("lightning", subject.lightning)):
                rates[f"{name}-{loop}"] = bench.time(run, flops, measure=name, loop=loop, compile=mode)

        chosen = mode_of(args, loop.compile_mode)
        with report.measuring(measure="ours"):
            both("ours", chosen)
        bench.clear()
        for peer in peers:
            with report.measuring(peer=peer), fused.without():
                if peer == "eager":
                    both(peer, None)
                elif peer in OF_PLAIN:
                    mode = MODES[OF_PLAIN[peer]]
                    run = taking(flowzoo_step, fresh, device, mode)
                    rates[peer] = bench.time(run, flops, peer=peer, loop="plain", compile=mode)
                elif find_spec("diffusers") is None:
                    report.skipped(peer, "not installed")
                else:
                    mode = MODES[OF_DIFFUSERS[peer]]
                    run = taking(diffusers_step, fresh, device, mode)
                    rates[peer] = bench.time(run, flops, peer=peer, loop="plain", compile=mode)
            bench.clear()
        ours = rates.get("ours-lightning")
        ratios = {
            f"ours/{name}": round(ours / rate, 4)
            for name, rate in rates.items()
            if ours and rate and name != "ours-lightning"
        }
        report.line(ratios=ratios, lightning_overhead=overhead(rates, "ours"), eager_overhead=overhead(rates, "eager"))
        if args.profile:  # after all that is timed, which a profiler may slow down
            bench.profile(lambda: subject_of("profile", chosen))
    return 1 if report.failed else 0


def overhead(rates: dict[str, float | None], name: str) -> float | None:
    """The share that Lightning's loop adds to the time of a bare step."""
    bare, lightning = rates.get(f"{name}-bare"), rates.get(f"{name}-lightning")
    return round(bare / lightning - 1, 4) if bare and lightning else None
