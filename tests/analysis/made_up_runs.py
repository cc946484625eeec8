"""A sweep of run folders as training and evaluation leave them, made up."""

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from PIL import Image, ImageDraw

from flowzoo.runs.lock import LOCK, Owner

NAMES = [
    "rf", "rf/lognorm(0.00,1.00)", "rf/lognorm(0.50,0.60)", "rf/lognorm(-0.50,1.00)", "rf/mode(1.29)", "rf/cosmap",
    "edm(-1.20,1.20)", "edm(0.00,0.60)", "edm/rf", "edm/cos", "eps/linear", "v/linear", "eps/cos", "v/cos",
]  # fmt: skip
COLUMNS = [
    "run", "variant", "dataset", "backbone", "seed", "step", "weights", "rule", "grid", "shift", "steps", "guidance",
    "nfe", "n_samples", "fid", "clip", "path_length", "seconds", "status", "protocol", "data",
]  # fmt: skip
PCA = {"_target_": "flowzoo.autoencoders.pca.BlockPCA", "factor": 4, "channels": 16, "gain": 1.0, "spectrum_power": 0.0}
PIXELS = {"_target_": "flowzoo.autoencoders.pixels.Pixels", "gain": 1.0}
SETTINGS = [(50, 1.0), (50, 2.5), (50, 5.0), (5, 5.0), (10, 5.0), (25, 5.0)]


def write_run(
    sweep: Path,
    name: str,
    seed: int = 0,
    state: str = "done",
    dataset: str = "shapes",
    weights: Sequence[str] = ("ema", "raw", "init"),
    settings: Sequence[tuple[int, float]] = SETTINGS,
    lr: float = 1e-3,
    metrics: Mapping[str, str] = MappingProxyType({}),
    autoencoder: Mapping[str, Any] = PCA,
) -> Path:
    """One run folder; the scores are a smooth function of the name, so that fronts differ between settings.

    `metrics` are others than FID and CLIP score, with their directions: numbers between 0 and 1.
    """
    seen = "" if autoencoder == PCA else sorted(autoencoder.items())
    rng = random.Random(f"{name}{seed}{dataset}{lr if lr != 1e-3 else ''}{seen}")
    file_name = name.replace("/", "_").replace("(", "_").replace(",", "_").replace(")", "")
    folder = sweep / f"{file_name}-s{seed}-{rng.getrandbits(32):08x}"
    (folder / "samples").mkdir(parents=True)
    config = {
        "seed": seed, "sigma_data": 0.5, "path": {"schedule": {"_target_": "flowzoo.formulation.schedule.RF"}},
        "data": {"name": dataset, "source": {"_target_": "flowzoo.data.shapes.Shapes", "image_size": 16}},
        "backbone": {"name": "mmdit", "_target_": "flowzoo.backbones.mmdit.MMDiT", "depth": 4, "width": 128},
        "autoencoder": dict(autoencoder),
        "optimizer": {"lr": lr, "warmup_steps": 100}, "trainer": {"steps": 300, "batch_size": 64},
        "ema": {"every": 100, "decay": 0.99, "bias_correction": True}, "metric": {"weights": "clip_shapes.safetensors"},
        "evaluation": {"samples": 256, "weights": list(weights)},
        "solver": {"rule": {"_target_": "flowzoo.sampling.solver.Recombine"}, "grid": {"name": "common"}},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    status = {
        "state": state, "variant": name, "attempt": 1, "step": 300 if state == "done" else 120, "steps": 300,
        "exception": "Traceback\nValueError: loss is nan at step 120" if state in ("diverged", "failed") else None,
        "started": "2026-01-01T10:00:00", "finished": "2026-01-01T10:00:41" if state == "done" else None,
    }  # fmt: skip
    status |= {"code_version": "0.1.0+abc1234", "gpu": "NVIDIA H100 80GB HBM3"}
    (folder / "status.json").write_text(json.dumps(status))
    about = {"size": [16, 16], "channels": 3, "fingerprint": f"0f1e2d3c-{dataset}", "latents": "00" * 8}
    about |= {"factor": 4, "latent_channels": 16, "statistics": "5a7e11fe"}
    (folder / "data.json").write_text(json.dumps(about))
    if state == "running":  # by this process, which lives
        (folder / LOCK).write_text(json.dumps(asdict(Owner.here())))
    level = 1 + 2 * rng.random()
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(10, 301, 10):
            loss = level * math.exp(-step / 150) + 0.2 * level
            record = {"step": step, "train_loss": loss * (1 + 0.1 * rng.random()), "images_per_s": 900 + rng.random()}
            file.write(json.dumps(record) + "\n")
            if step % 50 == 0:
                file.write(json.dumps({"step": step, "val_loss_ema": loss * 1.1, "val_loss_raw": loss}) + "\n")
        file.write('{"step": 310, "train_lo')
    with (folder / "density.csv").open("w") as file:
        file.write("u,t,log_snr,density_t\n")
        for i in range(1, 200):
            logit = math.log(i / (200 - i)) * level / 2
            t = 1 / (1 + math.exp(-logit))
            file.write(f"{i / 200},{t},{-2 * logit},{2 / level * i / 200 * (1 - i / 200) / (t * (1 - t))}\n")
    if state != "done":
        return folder
    rng = random.Random(f"{name}{seed}{dataset}{seen}")
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *metrics])
        writer.writeheader()
        quality, slope = rng.random(), rng.random()
        for kind in weights:
            for steps, guidance in settings:
                fid = 20 + 40 * quality + 200 * (0.3 + slope) / steps + 3 * (5 - guidance) + (kind == "raw") * 5
                clip = 0.26 - 0.03 * slope - 0.05 / steps - 0.01 * (5 - guidance) + 0.004 * rng.random()
                if kind == "init":
                    fid, clip = 400 + rng.random(), 0.02
                writer.writerow({
                    "run": folder.name, "variant": name, "dataset": dataset, "backbone": "mmdit-d4-w128", "seed": seed,
                    "step": 300, "weights": kind, "rule": "recombine", "grid": "common", "shift": 1.0, "steps": steps,
                    "guidance": guidance, "nfe": steps * (1 + (guidance != 1)), "n_samples": 256, "fid": fid,
                    "clip": clip, "path_length": 190 + rng.random(), "seconds": 3.2, "status": "done",
                    "protocol": f"a1b2c3d4-{dataset}", "data": "0f1e2d3c",
                    **{metric: rng.random() for metric in metrics},
                })  # fmt: skip
    image = Image.new("RGB", (8 * 34 + 2, 2 * 34 + 2), "white")
    draw = ImageDraw.Draw(image)
    for k in range(16):
        x, y = 2 + 34 * (k % 8), 2 + 34 * (k // 8)
        colour = tuple(rng.randrange(256) for _ in range(3))
        draw.rectangle((x, y, x + 31, y + 31), fill=colour)
        draw.ellipse((x + 8, y + 8, x + 22, y + 22), fill=tuple(255 - c for c in colour))
    image.save(folder / "samples" / "grid.png")
    (folder / "samples" / "prompts.txt").write_text("".join(f"a {c} circle\n" for c in ["red", "blue"] * 8))
    (folder / "extractor.json").write_text(json.dumps({f"a1b2c3d4-{dataset}": {
        "identity": {"name": "clip_shapes", "weights_sha256": "ab" * 32, "resize": "none", "dtype": "float32"},
        **({"metrics": {"fid": "min", "clip": "max", **metrics}} if metrics else {}),
        "dim": 64, "quality": {"retrieval_top1": 0.94}, "reference": "shapes-val-1234",
    }}))  # fmt: skip
    return folder


def write_sweep(folder: Path) -> None:
    """Fourteen variants done with one seed, one diverged, one failed, one still running."""
    for name in NAMES:
        write_run(folder, name)
    write_run(folder, "edm(1.20,1.80)", state="diverged")
    write_run(folder, "rf/mode(1.75)", state="failed")
    write_run(folder, "rf/lognorm(1.00,2.20)", state="running")
