"""A run as typed parts, ready to be trained, sampled and scored. Below this file nobody sees a config.

`flowzoo.build` makes these from a checked config; a script may make them itself (docs/extending.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.autoencoders.statistics import ChannelStatistics
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.data.source import Source
from flowzoo.encoders.text import TextEncoders
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.metrics.clip import ClipScore
from flowzoo.metrics.extractor import Extractor, FeatureExtractor
from flowzoo.metrics.fid import FID
from flowzoo.metrics.metric import Metric
from flowzoo.runs.store import Run
from flowzoo.sampling.grid import GRIDS, Common
from flowzoo.sampling.solver import Recombine, Solver
from flowzoo.training.ema import EMA, Average
from flowzoo.training.loop import Loop
from flowzoo.training.optimizer import AnyOptimizer, Optimizer
from flowzoo.training.rate import Linear, Rate
from flowzoo.training.rungs import Rungs


@dataclass(frozen=True)
class Model:
    """All that sampling needs."""

    formulation: Formulation
    backbone: nn.Module  # with the weights from which training starts, or with trained ones
    autoencoder: Latents
    text: TextEncoders
    size: tuple[int, int]  # (H, W) of images, pixels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of what the backbone sees."""
        return self.autoencoder.channels, *self.autoencoder.latent_size(self.size)

    @property
    def sees_pixels(self) -> bool:
        """Whether the backbone sees pixels, which come back as they were and are cheap to normalise."""
        return isinstance(self.autoencoder.autoencoder, Pixels)


@dataclass(frozen=True, order=True)
class Setting:
    """One of the paper's sampler settings (sec. 5.1)."""

    steps: int
    guidance: float
    grid: str = ""  # of `GRIDS`; empty: the solver's own


@dataclass(frozen=True)
class Evaluation:
    """How a run is judged. The defaults are those of conf/evaluation/paper.yaml, with the metrics of shapes."""

    samples: int = 2000
    batch_size: int = 500
    reference: int = 10_000  # held-out images that FID compares with, as far as there are so many
    seed: int = 0  # of the start noise: the same for every variant
    grid: int = 16  # images in samples/grid.png
    weights: Sequence[str] = ("ema", "raw")  # and "init", the untrained network
    settings: Sequence[Setting] = tuple(
        Setting(steps, guidance)
        for steps, guidance in ((50, 1.0), (50, 2.5), (50, 5.0), (5, 5.0), (10, 5.0), (25, 5.0))
    )
    solver: Solver = field(default_factory=lambda: Solver(Recombine(), Common()))
    extractor: FeatureExtractor = field(default_factory=Extractor)
    # class and parameters of the extractor and the autoencoder, for the protocol
    made_by: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Metric] = field(default_factory=lambda: (FID(), ClipScore()))

    def solver_of(self, setting: Setting) -> Solver:
        """The solver, on the setting's grid."""
        solver = self.solver
        return Solver(solver.rule, GRIDS[setting.grid](), solver.shift) if setting.grid else solver


@dataclass(frozen=True)
class Job:
    """A run with everything that it is made of."""

    run: Run
    model: Model
    train: Source | None  # None: the run is trained already, and only scored
    val: Source
    loop: Loop = field(default_factory=Loop)
    optimizer: AnyOptimizer = field(default_factory=Optimizer)
    rate: Rate = field(default_factory=Linear)  # how far from the optimiser's lr a step is
    ema: Average = field(default_factory=EMA)
    evaluation: Evaluation = field(default_factory=Evaluation)
    halving: Rungs | None = None
    logger: Callable[[], Logger] | None = None  # beside metrics.jsonl
    callbacks: Callable[[], Sequence[Callback]] | None = None  # made anew for each fit; they only look
    seed: int = 0  # of the order of images, u, noise and dropout
    dataset: str = ""  # what rows call the data; the source's own name where it is empty
    backbone_label: str = ""  # and the backbone
    config: Mapping[str, Any] | None = None  # what config.yaml says
    statistics: ChannelStatistics | None = None  # by which latents are normalised; a run keeps them
    about_data: Mapping[str, Any] = field(default_factory=dict)  # what data.json says beside the fingerprint
    cache: Path | None = None  # where statistics of the reference are kept, which many runs share
    as_trained: bool = True  # False: scored in another way than the run was when it was trained

    @property
    def variant(self) -> str:
        """The printed name of the formulation."""
        return self.model.formulation.name


class Stack:
    """V jobs that go through one program: they differ in formulation, seed, rate and weight decay alone, V >= 1."""

    def __init__(self, jobs: Sequence[Job], network: StackedBackbone | None = None) -> None:
        self.jobs = list(jobs)
        self.formulation = StackedFormulation([job.model.formulation for job in jobs])
        if network is None:
            network = StackedBackbone([job.model.backbone for job in jobs])
            if self.first.loop.is_double:
                # Lightning would convert them only after it has read a checkpoint into float32.
                network.double()
                self.model.autoencoder.double()
        self.network = network

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def first(self) -> Job:
        """What the jobs have in common is in any of them."""
        return self.jobs[0]

    @property
    def model(self) -> Model:
        return self.first.model

    @property
    def runs(self) -> list[Run]:
        return [job.run for job in self.jobs]

    def of(self, places: Sequence[int]) -> "Stack":
        """The stack of some of the jobs; of all of them this itself."""
        if list(places) == list(range(len(self))):
            return self
        rows = self.network.flat.detach()[list(places)]
        return Stack([self.jobs[i] for i in places], self.network.holding(rows))
