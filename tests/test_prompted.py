"""Each image for a prompt is a function of few things; the default file of a grid is named by what is in it."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from flowzoo.backbones.mmdit import MMDiT
from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
from flowzoo.formulation.named import formulation
from flowzoo.job import Model
from flowzoo.prompted import default_name, sample_prompts

OPTIONS = {"weights": "ema", "steps": 50, "guidance": 5.0, "seed": 0, "checkpoint": "best", "interval": None}
SOLVER = {"rule": {"_target_": "Heun"}, "shift": 1.0}


PROMPTS = ["a red circle", "two blue stars on black", "a square"]


def name(prompts=("a red circle",), options=OPTIONS, solver=SOLVER, negatives=None) -> str:
    return default_name(options, prompts, negatives, solver)


@dataclass
class AsTheyAre:
    """Latents that are their own images, so that no rounding to bytes hides anything."""

    channels: int = 3

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def to(self, device: torch.device) -> "AsTheyAre":
        return self

    def decode(self, z: Tensor) -> Tensor:
        return z


@pytest.fixture(scope="module")
def model() -> Model:
    text = TextEncoders({"many": WordEncoder(20, 8), "few": WordEncoder(6, 8)})
    torch.manual_seed(0)
    net = MMDiT(channels=3, size=(8, 8), text=text.spec, patch_size=4, depth=2, width=32, heads=2).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return Model(formulation("rf/lognorm(0.00,1.00)"), net, AsTheyAre(), text, (8, 8))


def drawn(model: Model, prompts=PROMPTS, **how) -> Tensor:
    return sample_prompts(model, prompts, **{"n": 3, "steps": 2} | how)


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("negatives", [None, ["a square"], ["a", "b red", "c"]])
def test_an_image_depends_on_seed_prompt_and_place_alone(model: Model, negatives: list[str] | None) -> None:
    whole = drawn(model, negatives=negatives)
    for size in (1, 2, 4):
        assert same(drawn(model, negatives=negatives, batch_size=size), whole)
    assert same(drawn(model, negatives=negatives, n=1), whole[::3])
    for p, prompt in enumerate(PROMPTS):
        away = negatives and negatives[p if len(negatives) > 1 else 0 :][:1]
        assert same(drawn(model, [prompt], negatives=away), whole[3 * p : 3 * p + 3])
    assert not same(drawn(model, negatives=negatives, seed=1), whole)
    assert not same(whole[0], whole[1])


def test_negative_prompts_take_the_place_of_no_text(model: Model) -> None:
    assert same(drawn(model, guidance=1, negatives=["a star"]), drawn(model, guidance=1))
    assert same(drawn(model, guidance=4, negatives=PROMPTS), drawn(model, guidance=1))
    assert same(drawn(model, negatives=["a star"] * 3), drawn(model, negatives=["a star"]))
    assert same(drawn(model, guidance=0, negatives=["a star"]), drawn(model, ["a star"] * 3, guidance=1))
    assert same(drawn(model, negatives=[""]), drawn(model))  # a caption without words is all zeros to these encoders
    assert not same(drawn(model, negatives=["a star"]), drawn(model))
    with pytest.raises(ValueError, match=r"2 negative prompts for 3 prompts; allowed: one, or one a prompt"):
        drawn(model, negatives=["a", "b"])


def test_an_interval_of_guidance(model: Model) -> None:
    assert same(drawn(model, interval=(0, torch.inf)), drawn(model))
    assert same(drawn(model, interval=(1, 1)), drawn(model, guidance=1))
    half = drawn(model, interval=(0, 1))  # of the two steps the second alone
    assert not same(half, drawn(model))
    assert not same(half, drawn(model, guidance=1))


DRAWN_OTHERWISE = {
    "weights": "raw",
    "steps": 5,
    "guidance": 2.5,
    "seed": 1,
    "checkpoint": "last",
    "interval": [0.2, 2],
}


def test_what_is_drawn_names_the_file():
    drawn = [
        name(),
        name(prompts=["a blue circle"]),
        name(prompts=["a red circle", "a red circle"]),
        *(name(options={**OPTIONS, key: value}) for key, value in DRAWN_OTHERWISE.items()),
        name(negatives=["a blue circle"]),
        name(solver={**SOLVER, "shift": 3.0}),
        name(solver={**SOLVER, "rule": {"_target_": "Recombine"}}),
    ]
    assert len(set(drawn)) == len(drawn)
    assert name(["a red circle"], solver=dict(reversed(SOLVER.items()))) == name()


def test_the_name_is_readable():
    assert re.fullmatch(r"prompted_ema_50_steps_guidance_5_seed_0_[0-9a-f]{8}\.png", name())
