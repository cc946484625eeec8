"""Parts from outside the package, made and tried with stand-ins for what they work on. Part of the door.

What is refused here would be a traceback in the middle of a run, or numbers that mean nothing.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from flowzoo.autoencoders.autoencoder import Autoencoder, Fitted
from flowzoo.build import autoencoder_of, backbone_of, formulation_of, optimizer_of, rate_of
from flowzoo.encoders.text import Text, TextEncoder
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.metrics.extractor import FeatureExtractor
from flowzoo.metrics.metric import Compared, Made, Metric, Statistics
from flowzoo.runs.hydras import locate
from flowzoo.runs.layout import DIRECTIONS
from flowzoo.sampling.grid import Grid
from flowzoo.sampling.solver import Rule
from flowzoo.sizes import patch_of
from flowzoo.training.ema import Average, check_average
from flowzoo.training.optimizer import RowOptimizer, TorchOptimizer, alone, needs_whole_weights
from flowzoo.training.rate import Rate, check_rate
from flowzoo.training.updates import check_rows, check_torch

_passed: set[str] = set()  # what was tried in this process, as a text of its config


def try_parts(values: Mapping[str, Any], outside: Mapping[str, str]) -> None:
    """Tries the parts of a resolved config at the places `outside`, each with its class. Raises ValueError."""
    cfg: Any = OmegaConf.create(dict(values))
    for place, target in outside.items():
        for pattern, trial in TRIALS.items():
            if fnmatchcase(place, pattern) and (told := _told(values, trial, place)) not in _passed:
                try:
                    trial(cfg, place, target)
                except Exception as error:  # a class from outside may raise anything
                    words = str(error.__cause__ or error) if isinstance(error, InstantiationException) else str(error)
                    words = " ".join(words.split()) or type(error).__name__
                    raise ValueError(words if words.startswith(place) else f"{place}: {target}: {words}") from error
                _passed.add(told)


def _told(values: Mapping[str, Any], trial: "Trial", place: str) -> str:
    """All that a trial depends on."""
    beside = ("path", "sampler", "weighting", "solver") if trial is _formulation else (place.split(".")[0],)
    kept = {key: values.get(key) for key in (*beside, "trainer", "stack")}
    if trial in (_backbone, _text_encoder):
        kept |= {key: values.get(key) for key in ("backbone", "text", "autoencoder", "data")}
    return json.dumps([trial.__name__, "" if trial is _formulation else place, kept], default=str)


def check_has(made: Any, interface: type) -> None:
    """Raises ValueError that names all that an object lacks of an interface."""
    asked = [name for name in (*getattr(interface, "__annotations__", {}), *vars(interface)) if name[0] != "_"]
    if missing := [name for name in dict.fromkeys(asked) if not hasattr(made, name)]:
        raise ValueError(
            f"it lacks {', '.join(missing)}; {interface.__module__}.{interface.__name__} says what each is for"
        )


def _optimizer(cfg: DictConfig, place: str, target: str) -> None:
    optimizer = optimizer_of(cfg.optimizer)
    if isinstance(optimizer, TorchOptimizer):
        if cfg.get("stack") is not None:
            raise ValueError(alone(target))
        check_torch(optimizer)
    elif isinstance(optimizer, RowOptimizer):
        check_rows(optimizer)
    else:
        raise ValueError(
            "it is derived neither from torch.optim.Optimizer nor from flowzoo.training.optimizer.RowOptimizer; "
            "allowed is a class that is"
        )
    if cfg.trainer.strategy == "sharded" and (isinstance(optimizer, TorchOptimizer) or optimizer.by_weight):
        raise ValueError(needs_whole_weights(target))


def _rate(cfg: DictConfig, place: str, target: str) -> None:
    rate = rate_of(cfg.optimizer)
    check_has(rate, Rate)
    check_rate(rate, cfg.trainer.steps)


def _average(cfg: DictConfig, place: str, target: str) -> None:
    each = [instantiate(cfg.ema) for _ in range(2)]
    check_has(each[0], Average)
    check_average(*each)


def _formulation(cfg: DictConfig, place: str, target: str) -> None:
    """Draws times and takes two steps, alone and as two variants, so that what does not fit is refused now."""
    for key, interface in (("rule", Rule), ("grid", Grid)):
        if place == f"solver.{key}":
            check_has(instantiate(cfg.solver[key]), interface)
    white = {"deviation": 1.0, "spectrum": {"centres": [0.0], "masses": [1.0]}}
    formulation, solver = formulation_of(cfg, white), instantiate(cfg.solver)
    formulation.density(formulation.coefficients(torch.tensor([0.25, 0.75], dtype=torch.float64)).t)
    alone = solver.sample(lambda z, c: torch.zeros_like(z), formulation, torch.ones(1, 1), steps=2)
    both = StackedFormulation([formulation, formulation])
    stacked = solver.sample(lambda z, c: torch.zeros_like(z), both, torch.ones(1, 1), steps=2)
    if stacked.x0.shape != (2, 1, 1) or not torch.equal(stacked.x0[0], stacked.x0[1]):
        raise ValueError("two equal variants sampled together come to different images")
    if int(alone.nfe) != (said := solver.rule.evaluations(2)):
        raise ValueError(f"evaluations(2) is {said}, and two steps call the network {int(alone.nfe)} times")


def _autoencoder(cfg: DictConfig, place: str, target: str) -> None:
    made = autoencoder_of(cfg, COLOURS)
    check_has(made, Autoencoder)
    if isinstance(made, Fitted):
        return  # it knows no images yet
    edge = 4 * made.factor
    images = _images(edge)
    latents = made.encode(images)
    _check_shape("encode(images)", latents, (2, made.channels, 4, 4))
    if not latents.is_floating_point():
        raise ValueError(f"encode(images) is {latents.dtype}; allowed are floating point numbers")
    back = made.decode(latents)
    _check_shape("decode(latents)", back, tuple(images.shape))
    if back.dtype != torch.uint8:
        raise ValueError(f"decode(latents) is {back.dtype}; allowed is torch.uint8")


def _text_encoder(cfg: DictConfig, place: str, target: str) -> None:
    made = instantiate(OmegaConf.select(cfg, place))
    check_has(made, TextEncoder)
    tokens, pooled = made.encode(["a red circle", ""])
    _check_shape("the tokens of encode(2 captions)", tokens, (2, made.length, made.dim))
    _check_shape("the pooled vectors of encode(2 captions)", pooled, (2, made.pooled_dim))


def _extractor(cfg: DictConfig, place: str, target: str) -> None:
    made = instantiate(cfg.extractor)
    check_has(made, FeatureExtractor)
    if "name" not in made.identity:
        raise ValueError(
            f"identity is {made.identity}; allowed is a dict with name and all that could change a feature"
        )
    _check_shape("images(2 images)", made.images(_images(_edge(cfg))), (2, made.dim))
    _check_shape("text(2 captions)", made.text(["a red circle", "a blue square"]), (2, made.dim))


def _metric(cfg: DictConfig, place: str, target: str) -> None:
    made = instantiate(OmegaConf.select(cfg, place))
    check_has(made, Metric)
    if wrong := {name: way for name, way in made.columns.items() if way not in DIRECTIONS}:
        raise ValueError(f"columns is {wrong}; allowed is min or max of each")
    if "name" not in made.identity:
        raise ValueError(f"identity is {made.identity}; allowed is a dict with name and all that could change a score")
    if isinstance(made, Compared):
        return  # it knows no held-out images yet
    statistics = made.statistics()
    check_has(statistics, Statistics)
    images = _images(_edge(cfg))[None].repeat(3, 1, 1, 1, 1)
    features = torch.rand(3, 2, 8)
    prompts = list(made.prompts or ["a red circle", "a blue square"])[:2]
    statistics.update(Made(images, features, prompts, torch.rand(2, 8)))
    values = statistics.values()
    if len(values) != 3 or any(set(one) != set(made.columns) for one in values):
        raise ValueError(f"values() of three variants is {values}; allowed is {list(made.columns)} of each")


def _backbone(cfg: DictConfig, place: str, target: str) -> None:
    """On the meta device: shapes without memory. What needs numbers when it is built is tried when its run starts."""
    autoencoder, text = autoencoder_of(cfg, COLOURS), instantiate(cfg.text)
    patch = patch_of(cfg.backbone.get("patch_size", 1), autoencoder.factor)
    edge = _edge(cfg)
    if edge % (patch * autoencoder.factor):
        edge = 4 * patch * autoencoder.factor
    latent = edge // autoencoder.factor
    latents: Any = SimpleNamespace(
        autoencoder=autoencoder, channels=autoencoder.channels, latent_size=lambda _: (latent, latent)
    )
    try:
        with torch.device("meta"):
            net = backbone_of(cfg, latents, text, (edge, edge))
            z = torch.zeros(2, autoencoder.channels, latent, latent)
            given = zip(text.spec.lengths, text.spec.dims, text.spec.pooled, strict=True)
            tokens, pooled = zip(*((torch.zeros(2, n, d), torch.zeros(2, p)) for n, d, p in given), strict=True)
            out = net(z, torch.zeros(2), Text(tokens, pooled))
    except (NotImplementedError, RuntimeError) as error:
        if "meta" in str(error).lower():
            return
        raise
    _check_shape("its output for z", out, tuple(z.shape))


def _logger(cfg: DictConfig, place: str, target: str) -> None:
    kind = locate(target)
    if isinstance(kind, type) and not issubclass(kind, Logger):
        raise ValueError("it is not derived from lightning.pytorch.loggers.Logger; allowed is a class that is")


# stand-ins

COLOURS = 3  # channels of the images


def _edge(cfg: DictConfig) -> int:
    """Pixels of the images along an axis, where the config says them."""
    size = OmegaConf.select(cfg, "data.source.image_size")
    return size if isinstance(size, int) else 32


def _images(edge: int) -> Tensor:
    return (torch.arange(2 * COLOURS * edge * edge) % 251).to(torch.uint8).view(2, COLOURS, edge, edge)


def _check_shape(what: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        told = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{what} has shape {told}; allowed is {list(shape)}")


class Trial(Protocol):
    __name__: str

    def __call__(self, cfg: DictConfig, place: str, target: str) -> None: ...


# By the place of a part in a config.
TRIALS: dict[str, Trial] = {
    **dict.fromkeys(("path.*", "sampler", "weighting", "solver", "solver.*"), _formulation),
    "optimizer": _optimizer,
    "optimizer.rate": _rate,
    "ema": _average,
    "backbone": _backbone,
    "text.encoders.*": _text_encoder,
    "autoencoder": _autoencoder,
    "extractor": _extractor,
    "metric.*": _metric,
    "logger": _logger,
}
