"""Train the small CLIP that scores samples and whose text tower conditions backbones.

Run as `python -m flowzoo.metrics.train_clip`.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from flowzoo.metrics.clip_data import Augment, CaptionedSet, load_set
from flowzoo.metrics.extractor import Extractor, build_clip, save_clip
from flowzoo.paths import user_path
from flowzoo.randomness import generator


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, captions: Tensor) -> Tensor:
    """-log probability that retrieval finds a hit, averaged over both directions (Radford et al. 2021, fig. 3).

    Deviation: every pair whose captions are equal is a hit, and its probabilities are added up, so equal captions never
    push each other's images away; with all captions distinct it is CLIP's loss.

    Args:
        image, text: unit vectors [n, dim]. scale: factor on the cosines, []. captions: numbers that are equal where the
            captions are, [n].
    """
    logits = scale * image @ text.T
    misses = captions[:, None] != captions[None, :]
    hits = logits.masked_fill(misses, -math.inf)
    both = (logits.logsumexp(dim) - hits.logsumexp(dim) for dim in (0, 1))
    return torch.stack([direction.mean() for direction in both]).mean()


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine down to 0."""
    rest = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return min((step + 1) / max(warmup_steps, 1), 0.5 * (1 + math.cos(math.pi * max(rest, 0.0))))


def train(
    data: CaptionedSet,
    architecture: Mapping[str, Any],
    augment: Augment,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    seed: int,
    compile: bool,
) -> nn.Module:
    """A CLIP of this architecture, trained on the device where `data` lies; bf16 on a GPU.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    device = data.images.device
    torch.manual_seed(seed)
    model = build_clip(architecture).to(device)
    mean, std = (torch.tensor(architecture[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    gains = [p for p in model.parameters() if p.ndim < 2]  # norms, biases and the logit scale are not decayed
    weights = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=device.type == "cuda")
    # cuDNN's attention backward gives NaN on some GPUs and shapes.
    torch.backends.cuda.enable_cudnn_sdp(False)

    def loss_of(images: Tensor, tokens: Tensor, captions: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            image = model.encode_image((images - mean) / std)  # type: ignore[operator]
            text = model.encode_text(tokens)  # type: ignore[operator]
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        return contrastive_loss(image, text, model.logit_scale.exp(), captions)  # type: ignore[operator]

    # CUDA graphs: at 512 images a step, launching the kernels takes longer than running them.
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    compiled = torch.compile(loss_of, mode=mode, dynamic=False) if compile else loss_of
    gen = generator(seed, 0, "train_clip", device)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=steps)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * schedule(step, steps, warmup_steps)
            images, captions = data.batch(batch_size, gen)
            loss = compiled(augment(images, gen), data.tokens[captions].long(), captions)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))  # type: ignore[operator]
            if step % 100 == 0 or step == steps - 1:
                value = loss.item()
                if not math.isfinite(value):
                    raise FloatingPointError(f"the loss is {value} at step {step}: lower lr={lr}")
                progress.update(task, description=f"loss {value:.3f}", completed=step + 1)
                if not progress.console.is_terminal:
                    progress.console.print(f"step {step:6d}  loss {value:.3f}")
    return model.eval()


def run(cfg: DictConfig) -> dict[str, Any]:
    """Read the data, train, measure the quality of what was written, and return it."""
    source, held_out = (hydra.utils.instantiate(cfg.data.source, split=s, **cfg.clip.source) for s in ("train", "val"))
    architecture: dict[str, Any] = OmegaConf.to_container(cfg.clip.architecture, resolve=True)  # type: ignore[assignment]
    data = load_set(source, architecture["text_cfg"]["context_length"], cfg.data.workers)
    data = data.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    recipe: dict[str, Any] = OmegaConf.to_container(cfg.clip.recipe, resolve=True)  # type: ignore[assignment]
    model = train(
        data, architecture, hydra.utils.instantiate(cfg.clip.augment), seed=cfg.seed, compile=cfg.compile, **recipe
    )
    path, about = user_path(cfg.output), {"name": f"clip_{cfg.data.name}", "quality": {}, "data": source.name}
    about["command"] = " ".join(["python -m flowzoo.metrics.train_clip", *sys.argv[1:]])
    save_clip(model, path, architecture=architecture, about=about)
    # Measured on the file, that is after rounding to half precision, and then written into it.
    extractor = Extractor(path).to(data.images.device)
    value = hydra.utils.instantiate(cfg.clip.quality.measure)(extractor, held_out)
    quality = {"what": cfg.clip.quality.what, "value": round(value, 4), "data": held_out.name}
    save_clip(model, path, architecture=architecture, about=about | {"quality": quality})
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {quality['what']}: {value:.1%} on held-out {held_out.name}")
    return quality


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parents[2] / "conf"), config_name="train_clip")
def main(cfg: DictConfig) -> None:
    run(cfg)


if __name__ == "__main__":
    main()
