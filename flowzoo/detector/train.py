"""Train the detector of the procedural world and write its file: `python -m flowzoo.detector.train`."""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from flowzoo.content import SHIPPED_DETECTOR
from flowzoo.data.shapes import Shapes
from flowzoo.detector.damage import COMPONENTS, Damage, principal, reconstructed
from flowzoo.detector.detector import Detector
from flowzoo.detector.loss import Truth, loss
from flowzoo.detector.measure import ATTRIBUTES, measure
from flowzoo.detector.network import PIXELS, Network, save
from flowzoo.detector.worlds import Batches, Labelled
from flowzoo.metrics.extractor import resize
from flowzoo.paths import user_path
from flowzoo.randomness import generator
from flowzoo.runs.output import command

SHARES = {32: 4 / 8, 64: 3 / 8, 16: 1 / 8}  # of the images of a batch, by their size
DECAY = 0.05  # of the weights
WARMUP = 0.05  # share of the steps in which the rate rises
ARCHITECTURE: dict[str, Any] = {"widths": [40, 128], "blocks": [1, 3]}
WHAT = (
    "least of: count (of images), form, colour, size, place within 0.05 widths (of objects, matched one to one; wrong "
    "for those not found), at 32 and 64 px"
)


def on_device(parts: list[Labelled], device: torch.device) -> tuple[Tensor, Truth]:
    """A batch as images [n, 3, 32, 32] in 0..1 and what stands in them."""

    def joined(name: str) -> Tensor:
        return torch.cat([torch.from_numpy(getattr(part, name)) for part in parts]).to(device, non_blocking=True)

    images = [resize(torch.from_numpy(part.images).to(device, non_blocking=True), PIXELS) for part in parts]
    return torch.cat(images) / 255, Truth(joined("there"), joined("center"), joined("words"))


def rate(step: int, steps: int) -> float:
    """Factor on the learning rate: it rises linearly, then falls by half a cosine to 0."""
    rise = max(1, int(WARMUP * steps))
    return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * max(step - rise, 0) / max(steps - rise, 1))))


def batches(seed: int, steps: int, batch_size: int, workers: int) -> Iterator[list[Labelled]]:
    """Drawn by `workers` processes (0: by this one)."""
    shares = {pixels: max(2, int(share * batch_size)) for pixels, share in SHARES.items()}
    data = Batches(seed, steps, shares)
    return iter(
        DataLoader(
            data,  # type: ignore[arg-type]  # a sequence of batches is one
            batch_size=None,
            shuffle=False,
            num_workers=workers,
            collate_fn=lambda parts: parts,
            prefetch_factor=4 if workers else None,
        )
    )


def train(*, steps: int, batch_size: int, lr: float, seed: int, workers: int, device: torch.device) -> Network:
    """A network after `steps` batches; bf16 on a GPU.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    drawn = batches(seed, steps, batch_size, workers)
    torch.manual_seed(seed)
    network = Network(**ARCHITECTURE).to(device).to(memory_format=torch.channels_last)
    kernels = [p for p in network.parameters() if p.ndim > 1]  # norms and biases are not decayed
    rest = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": kernels, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}],
        lr=lr,
        fused=device.type == "cuda",
    )
    gen = generator(seed, 0, "detector", device)
    damage: Damage | None = None
    start, told = time.monotonic(), 0
    for step, parts in enumerate(drawn):
        images, truth = on_device(parts, device)
        damage = damage or Damage(images)
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(step, steps)
        damaged = damage(images, gen).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            maps = network(damaged)
        terms = loss(maps, truth)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % max(1, steps // 40) == 0 or step == steps - 1:
            if not math.isfinite(value := total.item()):
                raise FloatingPointError(f"the loss is {value} at step {step}: lower --lr {lr:g}")
            now = time.monotonic()
            speed = (step + 1 - told) * len(images) / (now - start)
            start, told = now, step + 1
            each = "  ".join(f"{name} {term.item():.4f}" for name, term in terms.items())
            print(f"step {step:6d}  loss {value:.4f}  {each}  {speed:,.0f} images/s", flush=True)
    return network.eval()


def measured(path: Path, device: torch.device, n: int) -> dict[str, Any]:
    """The quality of the detector in the file, that is after rounding to half precision."""
    detector = Detector(path).to(device)
    found = {f"{pixels} px": measure(detector, pixels, n) for pixels in (32, 64, 16)}
    least = min(min(found[sharp].values()) for sharp in ("32 px", "64 px"))
    clean = torch.from_numpy(Shapes("train", image_size=PIXELS).images(range(500)))
    basis = principal(clean / 255)
    for kept in COMPONENTS:
        blurry = partial(rounded, basis=basis, kept=kept)
        found[f"32 px, {kept} principal components of 4 x 4 blocks"] = measure(detector, PIXELS, n, blurry)
    return {"what": WHAT, "value": least, "data": f"shapes, first {n:,} images of the val split", "accuracy": found}


def rounded(images: Tensor, basis: tuple[Tensor, Tensor], kept: int) -> Tensor:
    """uint8 images from their first `kept` principal components, as uint8."""
    x = reconstructed(images / 255, *basis, torch.full((len(images),), kept))
    return (255 * x).round().clamp(0, 255).to(torch.uint8)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("flowzoo.detector.train", description=__doc__)

    def least(low: float, kind: type) -> Any:
        def number(text: str) -> Any:
            if not kind(text) >= low:
                raise ValueError
            return kind(text)

        number.__name__ = f"number, allowed: {low} or more;"
        return number

    made.add_argument(
        "--output", default=str(SHIPPED_DETECTOR), metavar="FILE", help="by default the file of this package"
    )
    made.add_argument("--steps", type=least(1, int), default=9_000)
    made.add_argument("--batch-size", type=least(16, int), default=2048)
    made.add_argument("--lr", type=least(0, float), default=2e-3)
    made.add_argument("--seed", type=least(0, int), default=0)
    made.add_argument("--workers", type=least(0, int), default=os.cpu_count() or 1, help="processes that draw")
    made.add_argument(
        "--measure", type=least(1, int), default=10_000, metavar="N", help="held-out images, of each size"
    )
    return made


def main() -> int:
    options = parser().parse_args()
    path = user_path(options.output)
    if path.is_dir() or not path.parent.is_dir():
        print(f"flowzoo.detector.train: --output {path}: allowed is a file in a folder that is there", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True  # every batch has one size
    recipe = {name: getattr(options, name) for name in ("steps", "batch_size", "lr", "seed", "workers")}
    try:
        network = train(**recipe, device=device)
    except FloatingPointError as error:
        print(f"flowzoo.detector.train: {error}", file=sys.stderr)
        return 1
    words = [f"--{name.replace('_', '-')} {recipe[name]}" for name in ("steps", "batch_size", "lr", "seed")]
    about: dict[str, Any] = {"quality": {}, "command": " ".join(["python -m flowzoo.detector.train", *words])}
    save(network, path, about)
    quality = measured(path, device, options.measure)
    save(network, path, about | {"quality": quality})
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    for images, found in quality["accuracy"].items():
        print(f"{images}:  " + "  ".join(f"{name} {found[name]:.2%}" for name in ("count", *ATTRIBUTES)))
    return 0


if __name__ == "__main__":
    command(main)
