"""Train the small CLIP that scores samples and whose text tower conditions backbones: `python -m flowzoo.train_clip`.

The same command goes on where an earlier one stopped. Beside the output stands the training's folder, named by the
output and by a hash of the config and the images, so that another config never goes on from it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from flowzoo.backbones.stacked import Single
from flowzoo.data.overview import tell
from flowzoo.data.source import Source, shuffled
from flowzoo.encoders.clip import build_clip, save_clip, tokenizer
from flowzoo.metrics.clip_data import Augment, load_set
from flowzoo.metrics.extractor import Extractor
from flowzoo.runs.check import plain_values
from flowzoo.runs.files import RunError
from flowzoo.runs.limits import NOT_NEGATIVE, POSITIVE, Limit, check_limits, integer, one_of
from flowzoo.runs.output import follow
from flowzoo.runs.single import checked_output, launch_single, refuse_another, training_folder
from flowzoo.runs.store import Run
from flowzoo.sizes import shown
from flowzoo.sources import opened
from flowzoo.tasks.clip import ClipTask, Contrastive
from flowzoo.training.ema import EMA
from flowzoo.training.loop import Loop
from flowzoo.training.optimizer import Optimizer
from flowzoo.training.program import Program
from flowzoo.training.rate import Cosine
from flowzoo.training.single import train_single
from flowzoo.training.surroundings import check_compiler

FALLBACK = "clip=folder"
EVERY = 500  # steps from one validation and checkpoint to the next
RECIPE = ("steps", "batch_size", "lr", "weight_decay", "warmup_steps")
LIMITS: dict[str, Limit] = {
    "seed": integer(0),
    "compile": one_of("auto", True, False),
    "data.workers": integer(0),
    "clip.recipe.steps": integer(1),
    "clip.recipe.batch_size": integer(2),
    "clip.recipe.lr": POSITIVE,
    "clip.recipe.weight_decay": NOT_NEGATIVE,
    "clip.recipe.warmup_steps": integer(0),
    "clip.architecture.vision_cfg.patch_size": integer(1),
}


@dataclass(frozen=True)
class Prepared:
    """What a config asks for, checked."""

    source: Source
    held_out: Source
    architecture: dict[str, Any]
    augment: Augment
    recipe: dict[str, Any]
    loop: Loop
    output: Path
    config: dict[str, Any]  # resolved, less what changes no weight

    @property
    def folder(self) -> Path:
        """<output's name>-<hash of config and images> beside the output."""
        return training_folder(self.output, self.config, self.source.fingerprint, self.held_out.fingerprint)


def prepare(cfg: DictConfig) -> Prepared:
    """Everything that can be refused before images are read. Raises ValueError or RunError."""
    values = plain_values(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    check_limits(values, LIMITS)
    architecture, recipe = values["clip"]["architecture"], values["clip"]["recipe"]
    if wrong := set(recipe) ^ set(RECIPE):
        raise ValueError(f"clip.recipe.{min(wrong)}: allowed are {', '.join(RECIPE)}, each of them")
    output = checked_output(values["output"], "clip.safetensors")
    steps, batch_size = recipe["steps"], recipe["batch_size"]
    loop = Loop(steps, batch_size, compile=values["compile"], val_every=EVERY, checkpoint_every=EVERY)
    if loop.compile_mode is not None:
        check_compiler(loop.device.type, f"compile={str(values['compile']).lower()}", "compile=false")
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
    config = {key: value for key, value in values.items() if key not in ("output", "compile")}
    config["data"] = {key: value for key, value in config["data"].items() if key not in ("workers", "cache")}
    made = Prepared(source, held_out, architecture, augment, recipe, loop, output, config)
    refuse_another(output, made.folder)
    return made


def run(cfg: DictConfig) -> dict[str, Any]:
    """Read the data, train, measure the quality of what was written, and return it. Raises as `prepare`."""
    made = prepare(cfg)
    tell(made.source, made.held_out, Console())

    def finish(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return write(cfg, made, state)

    return train_single(Run(made.folder), made.config, made.loop, lambda: program(cfg, made), finish)


def program(cfg: DictConfig, made: Prepared) -> Program:
    """What trains the CLIP. RunError where the captions are all the same."""
    context, loop, recipe = made.architecture["text_cfg"]["context_length"], made.loop, made.recipe
    data = load_set(made.source, context, cfg.data.workers)
    if len(data.tokens) < 2:
        raise RunError(f"data {made.source.name}: all captions are the same, so there is nothing to tell apart")
    indices = shuffled(made.held_out, min(max(loop.val_samples, loop.batch_size), len(made.held_out)))
    held_out = load_set(made.held_out, context, 0, indices)
    torch.manual_seed(cfg.seed)
    network = Single(Contrastive(build_clip(made.architecture), made.architecture["mean"], made.architecture["std"]))
    return Program(
        network,
        ClipTask(data, held_out, made.augment, batch_size=loop.batch_size, seed=cfg.seed),
        EMA(every=loop.steps + 1),  # none: the rate has decayed to 0 at the last step
        [Optimizer(recipe["lr"], (0.9, 0.98), 1e-6, recipe["weight_decay"])],
        Cosine(recipe["warmup_steps"]),
        steps=loop.steps,
        clip_norm=loop.clip_norm,
        mixed=loop.is_half,
        compile_mode=loop.compile_mode,
        decayed=network.matrices(),  # norms, biases and the scale of the cosines are not
    )


def write(cfg: DictConfig, made: Prepared, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Writes the CLIP with these weights of `Contrastive`, measures it and returns its quality."""
    model = build_clip(made.architecture)
    model.load_state_dict({name.removeprefix("clip."): value for name, value in state.items()})
    path, about = made.output, {"name": f"clip_{cfg.data.name}", "quality": {}, "data": made.source.name}
    about["command"] = " ".join(["python -m flowzoo.train_clip", *sys.argv[1:]])
    # Measured on a file, that is after rounding to half precision, and then written into it.
    draft = made.folder / "clip.safetensors"
    save_clip(model, draft, architecture=made.architecture, about=about)
    extractor, held_out = Extractor(draft).to(made.loop.device), made.held_out
    value = hydra.utils.instantiate(cfg.clip.quality.measure)(extractor, held_out)
    prompts = len({held_out.prompt(i) for i in range(len(held_out))}) if "{prompts}" in cfg.clip.quality.what else 0
    what = cfg.clip.quality.what.replace("{prompts}", f"{prompts:,}")
    quality = {"what": what, "value": round(value, 4), "data": held_out.name}
    save_clip(model, path, architecture=made.architecture, about=about | {"quality": quality})
    draft.unlink()
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {what}: {value:.1%} on held-out {held_out.name}")
    return quality


def main() -> NoReturn:
    """Data without a recipe of their own in conf/clip take that of `folder`."""
    launch_single("train_clip", run, "clip.recipe.lr", FALLBACK)


if __name__ == "__main__":
    follow()
    main()
