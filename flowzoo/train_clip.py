"""Train the small CLIP that scores samples and whose text tower conditions backbones: `python -m flowzoo.train_clip`.

The same command goes on where an earlier one stopped. Beside the output stands the training's folder, named by the
output and by a hash of the config and the images, so that another config never goes on from it.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from torch import Tensor

from flowzoo.backbones.stacked import Single
from flowzoo.build import opened
from flowzoo.data.overview import tell
from flowzoo.data.source import Source, shuffled
from flowzoo.encoders.clip import build_clip, save_clip, tokenizer
from flowzoo.metrics.clip_data import Augment, load_set
from flowzoo.metrics.extractor import Extractor
from flowzoo.paths import conf, user_path
from flowzoo.runs.check import NOT_NEGATIVE, POSITIVE, Limit, check_limits, integer, one_of, plain_values
from flowzoo.runs.config import UserErrors, config_loader, refuse
from flowzoo.runs.files import RunError
from flowzoo.runs.hydras import VERSION_BASE, arguments, is_question
from flowzoo.runs.output import follow
from flowzoo.runs.signals import stoppable
from flowzoo.runs.store import Run
from flowzoo.sizes import shown
from flowzoo.tasks.clip import ClipTask, Contrastive
from flowzoo.training.ema import EMA
from flowzoo.training.loop import Loop
from flowzoo.training.optimizer import CosineDecay
from flowzoo.training.program import Program
from flowzoo.training.single import Diverged, train_single
from flowzoo.training.surroundings import check_compiler

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
        told = [self.config, self.source.fingerprint, self.held_out.fingerprint]
        digest = sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]
        return self.output.with_name(f"{self.output.stem}-{digest}")


def prepare(cfg: DictConfig) -> Prepared:
    """Everything that can be refused before images are read. Raises ValueError or RunError."""
    values = plain_values(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    check_limits(values, LIMITS)
    architecture, recipe = values["clip"]["architecture"], values["clip"]["recipe"]
    if wrong := set(recipe) ^ set(RECIPE):
        raise ValueError(f"clip.recipe.{min(wrong)}: allowed are {', '.join(RECIPE)}, each of them")
    output = _checked_output(values["output"])
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
    return Prepared(source, held_out, architecture, augment, recipe, loop, output, config)


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
        [CosineDecay(recipe["lr"], (0.9, 0.98), 1e-6, recipe["weight_decay"], recipe["warmup_steps"])],
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
    called = "flowzoo.train_clip"
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
    except Diverged as error:
        print(f"{called}: {error}: lower clip.recipe.lr={cfg.clip.recipe.lr}", file=sys.stderr)
        sys.exit(1)
    except UserErrors as error:
        refuse(called, error)
    except KeyboardInterrupt as error:
        print(f"{called}: {error or 'stopped'}; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    follow()
    main()
