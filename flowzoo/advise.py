"""The timestep law that data predict, before training: `python -m flowzoo.advise data=shapes autoencoder=pca`.

What it rests on, and what speaks against it: docs/advise.md.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from flowzoo.advice.findings import Finding, findings, similar, standing
from flowzoo.advice.picture import draw
from flowzoo.advice.prediction import Estimate, Near, Prediction, levels, predict
from flowzoo.autoencoders.autoencoder import Fitted
from flowzoo.autoencoders.spectrum import latents_of_some
from flowzoo.build import autoencoder_for, latents_of, measured
from flowzoo.data.overview import tell
from flowzoo.paths import user_path
from flowzoo.runs.check import check_single
from flowzoo.runs.files import check_output, replace, saying
from flowzoo.runs.identity import autoencoder_label, part_identity
from flowzoo.runs.limits import ACCELERATOR, integer
from flowzoo.runs.output import follow
from flowzoo.runs.single import launch_single
from flowzoo.sources import opened
from flowzoo.training.loop import Loop

NEAR, DRAWN, SIMILAR, LARGEST = 5, 2, 5, 6  # named formulations told and drawn; findings; eigenvalues
COUNTS = (1, 3, 10, 30, 100, 300, 1000)
OWN_LIMITS = {"images": integer(2), "accelerator": ACCELERATOR}


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measures, prints, writes the picture and the numbers, and returns these. Raises ValueError or RunError."""
    check_single(cfg, "advise", OWN_LIMITS)
    if cfg.out is not None:
        check_output("out", str(cfg.out), user_path(str(cfg.out)))
    device = Loop(accelerator=cfg.accelerator).device
    train, val = opened(cfg)
    autoencoder = autoencoder_for(cfg, train)
    console = Console()
    with console.status("measuring the spectrum"):
        latents = latents_of(cfg, autoencoder, measured(cfg, autoencoder, train, val, device))
        prediction = predict(latents_of_some(latents, train, cfg.images, device))
        near, known = prediction.nearest(), findings()
    tell(train, val, console, [("latents", autoencoder.told)] if isinstance(autoencoder, Fitted) else [])
    kind = autoencoder_label(cfg.autoencoder, autoencoder.factor, autoencoder.channels)
    name = f"{train.name}_{kind}_{latents.fingerprint[:6]}.png"
    out = user_path(str(cfg.out)) if cfg.out is not None else Path("runs", "advise", name)
    result = {
        "data": train.name,
        "size": list(train.size),
        "fingerprint": train.fingerprint,
        "autoencoder": {**part_identity(cfg.autoencoder), "latents": latents.fingerprint},
        **_numbers(prediction),
        "nearest": [asdict(one) for one in near],
        "similar": [asdict(one) for one in similar(prediction.law.mean, prediction.law.deviation, known)],
    }
    with saying(f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(out, prediction, near[:DRAWN], f"{train.name}, {kind}: the timestep law that its spectrum predicts")
        replace(out.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    _say(console, prediction, near, known)
    console.print(f"picture: {out}, numbers beside it", soft_wrap=True, highlight=False)
    return result


def _numbers(prediction: Prediction) -> dict[str, Any]:
    return {
        "images": prediction.images,
        "dimensions": prediction.dimensions,
        "eigenvalues": [float(f"{w:.5g}") for w in prediction.eigenvalues[:100].tolist()],
        "mean": asdict(prediction.mean),
        "deviation": asdict(prediction.deviation),
        "half_of_the_images": {"mean": prediction.half.mean, "deviation": prediction.half.deviation},
        "law": prediction.law.told,
    }


def _say(console: Console, prediction: Prediction, near: Sequence[Near], known: list[Finding]) -> None:
    """The prediction, what is near to it, what the study found, and how far to trust it."""
    law, total = prediction.law, float(prediction.eigenvalues.sum())
    largest = ", ".join(f"{w:,.0f}" if w >= 100 else f"{w:.3g}" for w in prediction.eigenvalues[:LARGEST].tolist())
    spectrum = Table("largest eigenvalues", *map(str, COUNTS), title="share of the variance", title_justify="left")
    spectrum.add_row(f"{largest} of {total:,.0f}", *(f"{prediction.share(n):.0%}" for n in COUNTS))
    predicted = Table("predicted ln sigma (on rf: logit t)", "value", "95 %", "half of the images")
    predicted.add_row("mean", *_told(prediction.mean), f"{prediction.half.mean:.2f}")
    predicted.add_row("deviation", *_told(prediction.deviation), f"{prediction.half.deviation:.2f}")
    named = Table("nearest of the 61", "mean", "deviation", "distance", "95 %", "nearest in")
    for one in near[:NEAR]:
        named.add_row(one.name, *_moments(one.name), *_told(one.distance), f"{one.nearest:.0%}")
    found = Table(
        "the study, nearest spectra first", "predicted", "distance", "best there", "found", "the rule", "runs"
    )
    for finding in similar(law.mean, law.deviation, known)[:SIMILAR]:
        apart, best = finding.distance(law.mean, law.deviation), finding.best[0]
        front = "" if best.rank is None else f", front {best.rank:.2f}"
        interval = "" if best.interval is None else f" [{best.interval[0]:.2f}, {best.interval[1]:.2f}]"
        seeds = f"{finding.seeds} seed{'s' if finding.seeds > 1 else ''}"
        found.add_row(
            f"{finding.data}, {finding.autoencoder}",
            f"{finding.mean:.2f}, {finding.deviation:.2f}",
            f"{apart:.2f}",
            f"{best.name} of {finding.ranked}{front}{interval}",
            ", ".join(_moments(best.name)),
            finding.verdict,
            f"{'pilot, ' if finding.source == 'pilot' else ''}{seeds}",
        )
    for table in (spectrum, predicted, named, found):
        # a cut number is worse than a long line
        wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        Console(width=max(console.width, wide)).print(table)
    lines = [
        f"{prediction.images:,} images of {prediction.dimensions:,} numbers. Intervals: images resampled. Distances to "
        "the 61: Wasserstein's of order 1 between laws of ln sigma; to the study's: of order 2, by mean and deviation.",
        *(f"{one.data}, {one.autoencoder}: {one.note}." for one in known if one.note),
    ]
    if not prediction.is_settled:
        lines.append("Half of the images would have said something else: more images may move this law, too.")
    lines += [
        f"{standing(known)} It sees neither captions nor the network, nor how a target weighs levels.",
        f"To try it: sampler=spectrum, or sampler=lognorm sampler.m={law.mean:.2f} sampler.s={law.deviation:.2f}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _told(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.value:.2f}", f"{estimate.low:.2f} to {estimate.high:.2f}"


def _moments(name: str) -> tuple[str, str]:
    level = levels(name)
    return f"{level.mean().item():.2f}", f"{level.std().item():.2f}"


def main() -> NoReturn:
    launch_single("advise", run)


if __name__ == "__main__":
    follow()
    main()
