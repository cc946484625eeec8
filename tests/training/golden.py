"""What runs on a CPU came to before training was rebuilt (by commit 9a2b1fa); `golden.json` holds the numbers.

    python tests/training/golden.py        trains the runs below and writes the file anew
    python tests/training/golden.py FILE   prints how far they are from those of FILE

Images, captions, words, float64 normals and uniform numbers are the same on every CPU; what a CLIP says of text, in
float32 and then rounded to half precision, is not. Float32 normals, from which validation and sampling start, are the
same on every CPU with AVX2.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import flowzoo.train
from flowzoo.randomness import generator
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run
from flowzoo.training.checkpoint import LAST, read_weights

FILE = Path(__file__).with_suffix(".json")
STEPS = 20
WORDS = [
    *("autoencoder=pixels", "text=words", "text.encoders.words.length=4", "data.source.image_size=16"),
    *("data.source.size=128", "backbone.depth=2", "backbone.width=32", "backbone.heads=2", "trainer.accelerator=cpu"),
    *(f"trainer.steps={STEPS}", "trainer.batch_size=8", "trainer.val_samples=8", "trainer.log_every=1"),
    *("trainer.val_every=10", "trainer.checkpoint_every=20", "optimizer.warmup_steps=5", "optimizer.lr=1e-3"),
    *("optimizer.decay_to=0.1", "optimizer.weight_decay=0.1", "ema.every=2", "ema.decay=0.8", "evaluation=quick"),
    *("evaluation.samples=66", "evaluation.batch_size=66", "evaluation.reference=70", "evaluation.weights=[ema]"),
    "evaluation.settings=[{steps: 3, guidance: 2.0}]",
]
# every backbone, and one of each family
RUNS = {
    "dit": "rf_lognorm_0.00_1.00",
    "crossdit": "eps_linear",
    "uvit": "v_cos",
    "mmdit": "edm_-1.20_1.20",
    "mmdit3": "rf_mode_1.29",
}
PRECISIONS = ("64-true", "32-true")


def train(backbone: str, precision: str, folder: Path, *words: str) -> dict[str, Any]:
    """One run from its command to its numbers."""
    words = (f"variant={RUNS[backbone]}", f"backbone={backbone}", f"trainer.precision={precision}", *words)
    with config_loader() as loader:
        (cfg,) = map(alone, compose_jobs(loader, "train", [*WORDS, *words, f"runs={folder}"], multirun=True))
    flowzoo.train.run(cfg)
    run = Run.open(run_folder(cfg))
    records, (row,) = run.metrics(), run.rows()
    raw, ema = (read_weights(run.path / "checkpoints" / LAST, weights)[0] for weights in ("raw", "ema"))
    return {
        "train_loss": [r["train_loss"] for r in records if "train_loss" in r],
        "grad_norm": [r["grad_norm"] for r in records if "train_loss" in r],
        "val_loss": [x for r in records if "val_loss_raw" in r for x in r["val_loss_by_t"]["ema"]],
        "weights": summary(raw),
        "ema": summary(ema),
        **{key: [row[key]] for key in ("fid", "clip", "path_length")},
    }


def summary(weights: Mapping[str, Tensor]) -> list[float]:
    """Of each parameter, in order, the mean of its numbers times fixed random ones."""
    fixed = {k: torch.randn(x.shape, generator=generator(0, 0, k), dtype=torch.float64) for k, x in weights.items()}
    return [(x.double() * fixed[k]).mean().item() for k, x in weights.items()]


def apart(found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, float]:
    """The largest difference of two runs: of summaries of weights as it is, of all else as a share of the number."""
    weights, rest = ("weights", "ema"), [key for key in known if key not in ("weights", "ema")]
    return {
        **{key: max(abs(x - y) for x, y in zip(found[key], known[key], strict=True)) for key in weights},
        **{key: max(abs(x / y - 1) for x, y in zip(found[key], known[key], strict=True)) for key in rest},
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = os.environ.get("GOLDEN_WORDS", "").split()
        results = {p: {b: train(b, p, Path(folder), *words) for b in RUNS} for p in PRECISIONS}
    if sys.argv[1:]:
        known = json.loads(Path(sys.argv[1]).read_text())
        for precision, runs in results.items():
            for backbone, found in runs.items():
                by = apart(found, known[precision][backbone])
                print(precision, backbone, *(f"{key} {x:.1e}" for key, x in by.items()))
    else:
        FILE.write_text(json.dumps(results, indent=0, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
