"""How well an autoencoder gives held-out images back: `python -m flowzoo.reconstruct data=shapes autoencoder=pca`.

The columns are those of the paper's Table 3: rFID, LPIPS where its network is given, SSIM and PSNR.
"""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from flowzoo.autoencoders.autoencoder import Fitted
from flowzoo.autoencoders.perceptual import LPIPS
from flowzoo.build import autoencoder_for, measured
from flowzoo.data.overview import tell
from flowzoo.metrics.fid import few_samples, no_fid
from flowzoo.metrics.reconstruction import LPIPS_EDGE, WINDOW, picture, reconstruct
from flowzoo.paths import user_path
from flowzoo.picture import save_grid
from flowzoo.runs.check import check_single
from flowzoo.runs.files import check_output, explained, replace, saying
from flowzoo.runs.identity import autoencoder_label, part_identity
from flowzoo.runs.limits import ACCELERATOR, integer
from flowzoo.runs.output import follow
from flowzoo.runs.single import launch_single
from flowzoo.sizes import shown
from flowzoo.sources import opened
from flowzoo.training.loop import Loop

SHOWN = 8  # images of the picture, above their reconstructions
OWN_LIMITS = {"images": integer(2), "accelerator": ACCELERATOR}


def run(cfg: DictConfig) -> dict[str, Any]:
    """Measures, prints, writes the picture and the numbers, and returns these. Raises ValueError or RunError."""
    check_single(cfg, "reconstruct", OWN_LIMITS)
    if cfg.out is not None:
        check_output("out", str(cfg.out), user_path(str(cfg.out)))
    device = Loop(accelerator=cfg.accelerator).device
    train, val = opened(cfg)
    autoencoder = autoencoder_for(cfg, train)
    try:
        extractor = instantiate(cfg.extractor).to(device)
        perceptual = instantiate(cfg.perceptual).to(device) if cfg.get("perceptual") else None
    except InstantiationException as error:
        raise explained(error) from error
    if perceptual is not None and not isinstance(perceptual, LPIPS):
        raise ValueError("perceptual: allowed here is lpips, the paper's distance")
    if perceptual is not None and min(val.size) < LPIPS_EDGE:
        raise ValueError(f"perceptual=lpips on images of {shown(val.size)}: allowed are edges of {LPIPS_EDGE} and more")
    measured(cfg, autoencoder, train, val, device)  # fits it where it is fitted, and refuses what training refuses
    autoencoder.to(device)
    told = [("autoencoder", autoencoder.told)] if isinstance(autoencoder, Fitted) else []
    console = Console()
    tell(train, val, console, told)
    found = reconstruct(autoencoder, val, cfg.images, device, extractor=extractor, perceptual=perceptual, keep=SHOWN)
    kind = autoencoder_label(cfg.autoencoder, autoencoder.factor, autoencoder.channels)
    name = f"{val.name}_{kind}_{autoencoder.fingerprint[:6]}.png"  # two may be of one kind
    out = user_path(str(cfg.out)) if cfg.out is not None else Path("runs", "reconstruct", name)
    scores = {"rfid": found.rfid, "lpips": found.lpips, "ssim": found.ssim, "psnr": found.psnr}
    result = {
        "data": val.name,
        "size": list(val.size),
        "images": found.images,
        "factor": autoencoder.factor,
        "channels": autoencoder.channels,
        **{key: None if x is None or not math.isfinite(x) else x for key, x in scores.items()},
        "autoencoder": {**part_identity(cfg.autoencoder), "fingerprint": autoencoder.fingerprint},
        "extractor": extractor.identity,
    }
    with saying(f"cannot write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        save_grid(out, picture(found), columns=SHOWN)
        replace(out.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    table = Table("data", "autoencoder", "f", "c", "rFID", "LPIPS", "SSIM", "PSNR, dB")
    shapes = (str(autoencoder.factor), str(autoencoder.channels))
    table.add_row(val.name, kind.split("_")[0], *shapes, *(_shown(x) for x in scores.values()))
    console.print(table)
    if few := no_fid(found.images, extractor.dim) or few_samples(found.images, extractor.dim):
        console.print(few)
    if found.ssim is None:
        console.print(f"SSIM is not given: its window is {WINDOW} x {WINDOW} pixels, images are {shown(val.size)}")
    console.print(f"images above their reconstructions: {out}", soft_wrap=True, highlight=False)
    return result


def _shown(x: float | None) -> str:
    return "none" if x is None else f"{x:.3f}"


def main() -> NoReturn:
    launch_single("reconstruct", run)


if __name__ == "__main__":
    follow()
    main()
