"""What the paper printed: Table 1 and the protocol of Esser et al. 2024.

Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, arXiv 2403.03206.
"""

from typing import NamedTuple

CITATION = "Esser et al. 2024, arXiv 2403.03206"


class PaperRank(NamedTuple):
    """Average rank over all 24 settings, over those of 5 steps, and over those of 50 steps at guidance 5.0."""

    all: float
    steps_5: float
    steps_50: float


# Table 1: the best two in some column of each family, and EDM's original setting. Ranks are among all 61 formulations.
PAPER_RANKS: dict[str, PaperRank] = {
    "rf/lognorm(0.00,1.00)": PaperRank(1.54, 1.25, 1.50),
    "rf/lognorm(1.00,0.60)": PaperRank(2.08, 3.50, 2.00),
    "rf/lognorm(0.50,0.60)": PaperRank(2.71, 8.50, 1.00),
    "rf/mode(1.29)": PaperRank(2.75, 3.25, 3.00),
    "rf/lognorm(0.50,1.00)": PaperRank(2.83, 1.50, 2.50),
    "eps/linear": PaperRank(2.88, 4.25, 2.75),
    "rf/mode(1.75)": PaperRank(3.33, 2.75, 2.75),
    "rf/cosmap": PaperRank(4.13, 3.75, 4.00),
    "edm(0.00,0.60)": PaperRank(5.63, 13.25, 3.25),
    "rf": PaperRank(5.67, 6.50, 5.75),
    "v/linear": PaperRank(6.83, 5.75, 7.75),
    "edm(0.60,1.20)": PaperRank(9.00, 13.00, 9.00),
    "v/cos": PaperRank(9.17, 12.25, 8.75),
    "edm/cos": PaperRank(11.04, 14.25, 11.25),
    "edm/rf": PaperRank(13.04, 15.25, 13.25),
    "edm(-1.20,1.20)": PaperRank(15.58, 20.25, 15.00),
}


class Deviation(NamedTuple):
    """One line of the protocol: what it is, the paper's choice, and the keys of config.yaml that tell ours."""

    what: str
    paper: str
    keys: tuple[str, ...]
    same: tuple[object, ...] = ()  # the values of those keys that equal the paper's choice; empty: never equal
    form: str = "{}"  # how ours is said
    words: tuple[str, str] | None = None  # for False and True


# Sections 5.1 and B.3.
PROTOCOL: tuple[Deviation, ...] = (
    Deviation("Training data", "ImageNet (captions “a photo of a …”) and CC12M", ("data.name",)),
    Deviation("Evaluated on", "COCO-2014 validation images and captions", ("data.name",), form="{}, held-out split"),
    Deviation("Text encoders", "CLIP-L/14, OpenCLIP bigG/14, T5-XXL, each dropped with p = 46.4 %", ("text.encoders",)),
    Deviation("Autoencoder", "latents, f = 8, normalised", ("autoencoder",)),
    Deviation("Learning rate", "AdamW, 1e-4", ("optimizer.lr",), (1e-4,)),
    Deviation("Warm-up steps", "1000, linear", ("optimizer.warmup_steps",), (1000,)),
    Deviation("Batch size", "1024", ("trainer.batch_size",), (1024,)),
    Deviation("EMA every, decay", "every 100 steps, 0.99", ("ema.every", "ema.decay"), (100, 0.99)),
    Deviation("EMA form", "plain", ("ema.bias_correction",), (False,), words=("plain", "bias-corrected")),
    Deviation("Samples a setting", "1000", ("evaluation.samples",), (1000,)),
    Deviation("Weights scored", "EMA and raw", ("evaluation.weights",)),
    Deviation("Solver", "Euler steps of eq. 1 (literally: euler_t)", ("solver.rule", "solver.grid", "solver.shift")),
    Deviation("EDM's sigma_data", "0.5", ("sigma_data",), (0.5,)),
)
PAPER_SETTINGS = (
    "50 steps at guidance 1, 2.5 and 5; 5, 10 and 25 steps at guidance 5; with and without EMA; 2 data sets (24)"
)
