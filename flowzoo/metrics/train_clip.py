"""Train the small CLIP that scores samples and whose text tower conditions backbones.

Run as `python -m flowzoo.metrics.train_clip`.
"""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from torch import Tensor, nn

from flowzoo.build import opened
from flowzoo.data.overview import tell
from flowzoo.data.source import Source
from flowzoo.encoders.clip import build_clip, save_clip, tokenizer
from flowzoo.metrics.clip_data import Augment, CaptionedSet, load_set
from flowzoo.metrics.extractor import Extractor
from flowzoo.paths import conf, user_path
from flowzoo.randomness import generator
from flowzoo.runs.check import FLAG, NOT_NEGATIVE, POSITIVE, Limit, check_limits, integer, plain_values
from flowzoo.runs.config import UserErrors, config_loader, refuse
from flowzoo.runs.files import RunError
from flowzoo.runs.hydras import VERSION_BASE, arguments, is_question
from flowzoo.runs.output import follow
from flowzoo.runs.signals import stoppable
from flowzoo.sizes import shown
from flowzoo.training.surroundings import check_compiler

RECIPE = ("steps", "batch_size", "lr", "weight_decay", "warmup_steps")
LIMITS: dict[str, Limit] = {
    "seed": integer(0),
    "compile": FLAG,
    "data.workers": integer(0),
    "clip.recipe.steps": integer(1),
    "clip.recipe.batch_size": integer(2),
    "clip.recipe.lr": POSITIVE,
    "clip.recipe.weight_decay": NOT_NEGATIVE,
    "clip.recipe.warmup_steps": integer(0),
    "clip.architecture.vision_cfg.patch_size": integer(1),
}


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


@dataclass(frozen=True)
class Prepared:
    """What a config asks for, checked."""

    source: Source
    held_out: Source
    architecture: dict[str, Any]
    augment: Augment
    recipe: dict[str, Any]
    output: Path


def prepare(cfg: DictConfig) -> Prepared:
    """Everything that can be refused before images are read. Raises ValueError or RunError."""
    values = plain_values(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    check_limits(values, LIMITS)
    architecture, recipe = values["clip"]["architecture"], values["clip"]["recipe"]
    if wrong := set(recipe) ^ set(RECIPE):
        raise ValueError(f"clip.recipe.{min(wrong)}: allowed are {', '.join(RECIPE)}, each of them")
    output = _checked_output(values["output"])
    if values["compile"]:
        check_compiler("cuda" if torch.cuda.is_available() else "cpu", "compile=true", "compile=false")
    source, held_out = opened(cfg, **values["clip"]["source"])
    if source.channels != 3:
        raise ValueError(f"data {source.name} has {source.channels} channels; allowed: 3")
    vision = architecture["vision_cfg"]
    height, width = source.size
    if height != width:
        raise ValueError(
            f"data {source.name}: images are {shown(source.size)} pixels; allowed for the small CLIP are squares, such "
            f"as data.source.image_size={max(source.size)} (scores squeeze other shapes into a square)"
        )
    size = vision["image_size"] = vision.get("image_size") or height
    if size != height:
        raise ValueError(
            f"clip.architecture.vision_cfg.image_size={size}: allowed is null, or the {height} of the images"
        )
    if size % vision["patch_size"]:
        patch = vision["patch_size"]
        raise ValueError(f"clip.architecture.vision_cfg.patch_size={patch}: allowed is a divisor of {size}")
    try:
        augment = hydra.utils.instantiate(cfg.clip.augment)
        with torch.no_grad():
            model = build_clip(architecture)
            model.encode_image(torch.zeros(1, 3, size, size))  # type: ignore[operator]
            model.encode_text(tokenizer(architecture["text_cfg"]["context_length"])(["a"]))  # type: ignore[operator]
    except (InstantiationException, ValueError, TypeError, RuntimeError, AssertionError, KeyError) as error:
        where = "augment" if isinstance(error, InstantiationException) else "architecture"
        raise ValueError(f"clip.{where}: {error.__cause__ or error or type(error).__name__}") from error
    return Prepared(source, held_out, architecture, augment, recipe, output)


def _checked_output(given: Any) -> Path:
    path = user_path(str(given))
    if path.is_dir():
        raise ValueError(f"output={given}: this is a folder; allowed is a file, such as {path / 'clip.safetensors'}")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise ValueError(f"output={given}: {nearest} is a file; allowed is a folder")
    if not os.access(nearest, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"output={given}: no permission to write there")
    return path


def run(cfg: DictConfig) -> dict[str, Any]:
    """Read the data, train, measure the quality of what was written, and return it. Raises as `prepare`."""
    made = prepare(cfg)
    tell(made.source, made.held_out, Console())
    data = load_set(made.source, made.architecture["text_cfg"]["context_length"], cfg.data.workers)
    if len(data.tokens) < 2:
        raise RunError(f"data {made.source.name}: all captions are the same, so there is nothing to tell apart")
    data = data.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    model = train(data, made.architecture, made.augment, seed=cfg.seed, compile=cfg.compile, **made.recipe)
    path, about = made.output, {"name": f"clip_{cfg.data.name}", "quality": {}, "data": made.source.name}
    about["command"] = " ".join(["python -m flowzoo.metrics.train_clip", *sys.argv[1:]])
    save_clip(model, path, architecture=made.architecture, about=about)
    # Measured on the file, that is after rounding to half precision, and then written into it.
    extractor, held_out = Extractor(path).to(data.images.device), made.held_out
    value = hydra.utils.instantiate(cfg.clip.quality.measure)(extractor, held_out)
    prompts = len({held_out.prompt(i) for i in range(len(held_out))}) if "{prompts}" in cfg.clip.quality.what else 0
    what = cfg.clip.quality.what.replace("{prompts}", f"{prompts:,}")
    quality = {"what": what, "value": round(value, 4), "data": held_out.name}
    save_clip(model, path, architecture=made.architecture, about=about | {"quality": quality})
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {what}: {value:.1%} on held-out {held_out.name}")
    return quality


def composed(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The config of a command. Data without a recipe of its own in conf/clip takes that of `folder`."""
    with config_loader(config_dir) as loader:
        cfg = loader.load_configuration("train_clip", list(overrides), RunMode.RUN)
        if "clip" not in cfg:
            cfg = loader.load_configuration("train_clip", [*overrides, "clip=folder"], RunMode.RUN)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def main() -> NoReturn:
    """Exits with 0, with 2 for a command that is refused, 1 where training fails, 130 where it is interrupted."""
    program = "flowzoo.metrics.train_clip"
    args = arguments()
    if is_question(args):
        hydra.main(config_path=str(conf()), config_name="train_clip", version_base=VERSION_BASE)(lambda cfg: None)()
        sys.exit(0)
    try:
        if args.multirun or args.config_path or args.config_name or args.experimental_rerun:
            raise ValueError("allowed are key=value, --config-dir, --cfg job and --help")
        cfg = composed(args.overrides, args.config_dir)
        if args.cfg:
            print(OmegaConf.to_yaml(cfg), end="")
            sys.exit(0)
        stoppable(run)(cfg)
    except UserErrors as error:
        refuse(program, error)
    except FloatingPointError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{program}: stopped; nothing is kept of a training that has not ended", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    follow()
    main()
