"""A whole sweep, trained and scored: minutes of start, training, sampling, scoring and the rest.

It is `python -m sweeps run` of the paper's 61, or the first of them, in one stack on one GPU, in a folder of its own.
Sampling is the solver; scoring is all from latents to a row's numbers. A study that was stopped goes on with the same
--folder, and its minutes are those of all attempts. Less than the whole study is also told as `extrapolated`:
training times steps, sampling and scoring times samples, of as many variants.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flowzoo.bench.phases import PHASES
from flowzoo.bench.report import Report
from flowzoo.formulation.names import TABLE
from flowzoo.runs.arguments import positive

STEPS, SAMPLES = 4000, 1000  # of the whole study
ATTEMPTS = "attempts.jsonl"


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("--variants", type=positive, default=len(TABLE), help="the first of the paper's 61")
    parser.add_argument("--steps", type=positive, default=STEPS, help="of training")
    parser.add_argument("--samples", type=positive, default=SAMPLES, help="of each variant in each setting")
    parser.add_argument("--padded", action="store_true", help="every padding token of the text is computed")
    parser.add_argument("--folder", type=Path, help="kept, for a study that is stopped and goes on; or a temporary one")
    parser.add_argument("words", nargs="*", metavar="key=value", help="of the sweep: autoencoder=pixels, ...")


def measure(args: Namespace, report: Report) -> int:
    if args.variants > len(TABLE):
        raise ValueError(f"--variants {args.variants}: allowed are at most {len(TABLE)}, the paper's")
    report.config["folder"] = args.folder and str(args.folder)
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _check_begun(args, folder)
        with report.measuring(measure="study", variants=args.variants):
            code, attempts = _attempt(args, folder)
            if code == 130:
                raise KeyboardInterrupt
            if code == 2:
                return 2  # words that the sweep refused, and said so
            seconds = {phase: sum(one["seconds"][phase] for one in attempts) for phase in PHASES}
            told = {
                "measure": "study",
                "variants": args.variants,
                "attempts": len(attempts),
                "gpu": attempts[-1]["gpu"],
            }
            rate = args.variants * args.steps / seconds["train"]
            report.line(**told, minutes=minutes(seconds), variant_steps_per_s=round(rate, 1))
            if (args.steps, args.samples) != (STEPS, SAMPLES):
                factors = {
                    "train": STEPS / args.steps,
                    "sample": SAMPLES / args.samples,
                    "score": SAMPLES / args.samples,
                }
                whole = {phase: value * factors.get(phase, 1) for phase, value in seconds.items()}
                report.line(**told, extrapolated={"steps": STEPS, "samples": SAMPLES, "minutes": minutes(whole)})
    return 1 if report.failed else 0


def minutes(seconds: dict[str, float]) -> dict[str, float]:
    return {**{k: round(s / 60, 3) for k, s in seconds.items()}, "all": round(sum(seconds.values()) / 60, 3)}


def _check_begun(args: Namespace, folder: Path) -> None:
    """Raises ValueError where the folder's study computes another number of tokens."""
    begun = _attempts(folder)
    if begun and begun[0]["padded"] != args.padded:
        raise ValueError(f"--folder {folder}: it was begun {'with' if begun[0]['padded'] else 'without'} --padded")


def _attempts(folder: Path) -> list[dict[str, Any]]:
    path = folder / ATTEMPTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _attempt(args: Namespace, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """The sweep in a process of its own, to its end, to a signal or to a refusal: its code, and all attempts so far."""
    folder.mkdir(parents=True, exist_ok=True)
    clocked = folder / "clocked.json"
    clocked.unlink(missing_ok=True)
    words = ["--padded"] * args.padded + ["run", _sweep(args.variants, folder), *_words(args, folder)]
    begun = time.perf_counter()
    code = _run([sys.executable, "-m", "flowzoo.bench.phases", str(clocked), *words])
    wall = time.perf_counter() - begun
    if code == 2:
        return code, []
    if code not in (0, 130) or not clocked.exists():
        raise RuntimeError(f"python -m sweeps {' '.join(words[args.padded :])} ended with exit code {code}")
    told = json.loads(clocked.read_text())
    told["seconds"]["start"] += wall - sum(told["seconds"].values())  # until its clocks go, and its end
    with open(folder / ATTEMPTS, "a") as lines:
        print(json.dumps({**told, "padded": args.padded}), file=lines)
    return code, _attempts(folder)


def _sweep(variants: int, folder: Path) -> str:
    """The name of a sweep, or its file."""
    if variants == len(TABLE):
        return "sd3_61"
    path = folder / "some.yaml"
    path.write_text(json.dumps({"variants": list(TABLE)[:variants]}))
    return str(path)


def _words(args: Namespace, folder: Path) -> list[str]:
    return [
        "engine=stacked",
        "stack.processes=1",
        f"trainer.steps={args.steps}",
        f"evaluation.samples={args.samples}",
        f"runs={folder / 'runs'}",
        *args.words,
    ]


def _run(command: Sequence[str]) -> int:
    """Exit code of a command whose output is for people. A signal that ends the bench lets it save before."""
    with subprocess.Popen(command, stdout=2, start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            return process.wait()
