"""V variants in one program, beside the same models one by one, in several processes, and on several GPUs.

Ours is the real path under Lightning, then the same module without it. `padded`, of --default-text, is ours with every
padding token computed. `eager` is one model after another on the real path uncompiled, so that its variant-steps a
second are its steps. `compiled` and `cudagraphs` are the least that trains the network, on one batch that never
changes; `processes-...` is that in `--processes` processes on one GPU, their rates added up. Those compute in plain
torch, without our kernels. With `--gpus N` the variants are dealt to N GPUs, one process each.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from flowzoo.bench.report import Report
from flowzoo.bench.size import (
    MODES,
    check_graphs,
    check_padded,
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
from flowzoo.fleet import gpus
from flowzoo.runs.arguments import positive
from flowzoo.runs.grouping import dealt as deal

PEERS = ("eager", "compiled", "cudagraphs", "processes-eager", "processes-cudagraphs", "padded")


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--variants", type=positive, default=61, help="the paper's 61, from the 62nd on again")
    parser.add_argument("--processes", type=positive, default=4, help="of the peers processes-...")
    parser.add_argument("--gpus", type=positive, default=1, help="to which the variants are dealt")
    configure_size(parser)
    configure_repeats(parser)
    configure_ours(parser)
    configure_peers(parser, PEERS)


def measure(args: Namespace, report: Report) -> int:
    peers = check_padded(args, peers_of(args, PEERS), report)
    if args.gpus > args.variants:
        raise ValueError(f"--gpus {args.gpus}: allowed is at most one a variant, {args.variants}")
    with tempfile.TemporaryDirectory() as name, ExitStack() as tokens:
        folder = Path(name)
        cfgs = configs(words_of(args, folder / "runs"), args.variants)
        cfg = cfgs[0]

        from flowzoo.backbones import fused
        from flowzoo.bench.measure import Measure, training_flops
        from flowzoo.bench.plain import flowzoo_step, taking
        from flowzoo.bench.processes import together
        from flowzoo.bench.subject import Subject
        from flowzoo.build import jobs_of, loop_of
        from flowzoo.encoders.text import unmerged

        tokens.enter_context(tokens_of(args))
        loop = loop_of(cfg)
        device = loop.device
        peers = check_graphs(args, peers, device, report)
        ours = mode_of(args, loop.compile_mode)
        there = len(gpus()) if device.type == "cuda" else args.gpus
        if args.gpus > there:
            raise ValueError(f"--gpus {args.gpus}: allowed is at most {there}, as many as there are")
        bench = Measure(args, report, device)
        bench.product()
        (folder / "one").mkdir()
        fresh = lambda: jobs_of([cfg], [folder / "one"])[0]  # noqa: E731
        flops = None if args.default_text else training_flops(cfg)
        rates: dict[str, float | None] = {}

        def stack(some: Sequence[DictConfig], name: str, loops: Sequence[str]) -> None:
            with report.measuring(measure=name, variants=len(some)):
                subject = Subject(some, folder / name, ours)
                for loop in loops:
                    run = {"bare": subject.bare, "lightning": subject.lightning}[loop]
                    key = name if loop == "lightning" else f"{name}-{loop}"
                    rates[key] = bench.time(run, flops, len(some), measure=name, loop=loop, compile=ours)
            bench.clear()

        def several(name: str, task: Callable[..., float], jobs: Sequence[tuple], gpu: int | None = None) -> None:
            with report.measuring(measure=name):
                each = together(task, jobs, gpu)
                rates[name] = sum(each)
                told = {"processes": len(jobs), "each": [round(rate, 3) for rate in each]}
                report.line(measure=name, **told, **bench.rates(sum(each), flops))

        stack(cfgs, "stacked", ("bare", "lightning"))
        laps = (args.steps_per_repeat, args.repeats, args.seconds)
        if args.gpus > 1:
            shares = deal(cfgs, args.gpus)
            stack(shares[0], "share", ("lightning",))
            jobs = [
                ([OmegaConf.to_yaml(one) for one in share], str(folder / f"gpu{k}"), ours, args, *laps)
                for k, share in enumerate(shares)
            ]
            several("dealt", dealt, jobs)
        for peer in peers:
            if peer == "eager":
                with report.measuring(peer=peer), fused.without():
                    solo = Subject([cfg], folder / peer, None)
                    rates[peer] = bench.time(solo.lightning, flops, peer=peer, loop="lightning")
                    del solo
            elif peer == "padded":
                with unmerged():
                    stack(cfgs, peer, ("lightning",))
            elif peer in MODES:
                mode = MODES[peer]
                run = taking(flowzoo_step, fresh, device, mode)
                with fused.without():
                    rates[peer] = bench.time(run, flops, peer=peer, loop="plain", compile=mode)
            else:
                job = (OmegaConf.to_yaml(cfg), str(folder / "one"), peer.removeprefix("processes-"), *laps)
                several(peer, plain, [job] * args.processes, gpu=0)
            bench.clear()
        report.line(ratios=ratios(rates, args))
        if args.profile:  # after all that is timed, which a profiler may slow down
            bench.profile(lambda: Subject(cfgs, folder / "profile", ours))
    return 1 if report.failed else 0


def ratios(rates: dict[str, float | None], args: Namespace) -> dict[str, float]:
    """Ours against each peer, and what dealing gains."""
    told = {}
    ours = rates.get("stacked")
    for name, rate in rates.items():
        if ours and rate and name not in ("stacked", "share", "dealt"):
            told[f"stacked/{name}"] = ours / rate
    dealt = rates.get("dealt")
    for name, words in (("stacked", f"all_{args.variants}_on_1"), ("share", f"{-(-args.variants // args.gpus)}_on_1")):
        if dealt and (rate := rates.get(name)):
            told[f"{args.variants}_on_{args.gpus}/{words}"] = dealt / rate
    if ours and (bare := rates.get("stacked-bare")):
        told["lightning_overhead"] = bare / ours - 1
    return {name: round(value, 4) for name, value in told.items()}


def dealt(
    ready: Callable[[], object], texts: Sequence[str], folder: str, mode: str | None, args: Namespace, *laps: float
) -> float:
    """Variant-steps a second of one GPU's share, in a process of its own."""
    from flowzoo.bench.stopwatch import Stopwatch
    from flowzoo.bench.subject import Subject

    watch = Stopwatch(int(laps[0]), int(laps[1]), laps[2], ready)
    with tokens_of(args):
        Subject([_read(text) for text in texts], Path(folder), mode).lightning(watch)
    return len(texts) * watch.rate


def plain(ready: Callable[[], object], text: str, folder: str, mode: str, *laps: float) -> float:
    """Steps a second of one model in a process of its own."""
    import torch

    from flowzoo.backbones import fused
    from flowzoo.bench.plain import flowzoo_step
    from flowzoo.bench.stopwatch import Stopwatch
    from flowzoo.build import jobs_of

    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)
    (job,) = jobs_of([_read(text)], [Path(folder)])
    device = job.loop.device
    watch = Stopwatch(int(laps[0]), int(laps[1]), laps[2], ready)
    with fused.without():
        watch.run(flowzoo_step(job, device, MODES[mode]), device)
    return watch.rate


def _read(text: str) -> DictConfig:
    cfg = OmegaConf.create(text)
    assert isinstance(cfg, DictConfig)
    return cfg
