"""What metrics are worth on a data set: `python -m flowzoo.calibrate data=shapes metric=[fid,fid_random,swd,clip]`.

One half of the held-out images is scored against the other, as it is and with damage of growing strength.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from flowzoo.metrics.ladders import LADDERS, Rung, climb, order
from flowzoo.runs.check import check_single
from flowzoo.runs.files import explained, replace, saying
from flowzoo.runs.limits import ACCELERATOR, integer
from flowzoo.runs.output import follow
from flowzoo.runs.single import checked_output, launch_single
from flowzoo.sources import source_of
from flowzoo.training.loop import Loop

OWN_LIMITS = {"images": integer(2), "accelerator": ACCELERATOR}


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measures, prints, writes the numbers as JSON, and returns them. Raises ValueError or RunError."""
    check_single(cfg, "calibrate", OWN_LIMITS)
    output = checked_output(cfg.output, "ladders.json")
    device = Loop(accelerator=cfg.accelerator).device
    val = source_of(cfg, "val")
    try:
        extractor = instantiate(cfg.extractor).to(device)
        metrics = [instantiate(metric) for metric in cfg.metric.values()]
    except InstantiationException as error:
        raise explained(error) from error
    rungs, said = climb(metrics, extractor, val, cfg.images, device)
    ways = {name: way for metric in metrics if metric.prompts is None for name, way in metric.columns.items()}
    orders = {kind: {name: order(rungs, kind, name, way) for name, way in ways.items()} for kind in LADDERS}
    result = {
        "data": val.name,
        "images": min(cfg.images, len(val) // 2),
        "extractor": extractor.identity,
        "metrics": ways,
        "rungs": [{"kind": r.kind, "strength": r.strength, **r.scores} for r in rungs],
        "order": orders,
    }
    with saying(f"cannot write {output}"):
        output.parent.mkdir(parents=True, exist_ok=True)
        replace(output, json.dumps(result, indent=1) + "\n")
    console = Console()
    for words in dict.fromkeys(said):
        console.print(words)
    _say(console, rungs, list(ways), orders)
    console.print(f"the numbers: {output}", soft_wrap=True, highlight=False)
    return result


def _say(
    console: Console, rungs: Sequence[Rung], columns: Sequence[str], orders: Mapping[str, Mapping[str, float | None]]
) -> None:
    """A line a rung and, after each ladder, how well each score orders it; scores that are all alike stand once."""
    series = {name: tuple(rung.scores[name] for rung in rungs) for name in columns}
    shown = [name for i, name in enumerate(columns) if series[name] not in [series[n] for n in columns[:i]]]
    table = Table("damage", *shown)
    for i, rung in enumerate(rungs):
        last = i + 1 == len(rungs) or rungs[i + 1].kind != rung.kind
        label = f"{rung.kind} {rung.strength:g}" if rung.strength else rung.kind
        table.add_row(label, *(_shown(rung.scores[n]) for n in shown), end_section=last and rung.kind not in orders)
        if last and rung.kind in orders:
            told = (orders[rung.kind][name] for name in shown)
            table.add_row("in order", *("" if x is None else f"{x:.0%}" for x in told), end_section=True)
    # a cut number is worse than a long line
    wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    Console(width=max(console.width, wide)).print(table)


def _shown(x: float | None) -> str:
    return "none" if x is None else f"{x:.3g}"


def main() -> NoReturn:
    launch_single("calibrate", run)


if __name__ == "__main__":
    follow()
    main()
