"""Images of a network do not depend on how its text is told."""

import pytest
import torch
from ideal import build
from torch.testing import assert_close

from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
from flowzoo.formulation.names import TABLE
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.sampling.generate import Generator, start_noise
from flowzoo.sampling.grid import Common
from flowzoo.sampling.solver import Recombine, Solver


@pytest.mark.parametrize("variants", [0, 1, 2])  # 0: a backbone by itself
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_merged_text_gives_the_same_images(variants: int, scale: float) -> None:
    text = TextEncoders({"many": WordEncoder(20, 8), "few": WordEncoder(6, 8)})
    torch.manual_seed(0)
    networks = [
        MMDiT(channels=3, size=(8, 8), text=text.spec, patch_size=4, depth=2, width=32, heads=2).double()
        for _ in range(max(1, variants))
    ]
    for p in (p for network in networks for p in network.parameters()):
        torch.nn.init.normal_(p, std=0.2)
    form = build(TABLE["rf/lognorm(0.00,1.00)"])
    network, formulation = (
        (StackedBackbone(networks), StackedFormulation([form] * variants)) if variants else (networks[0], form)
    )
    generator = Generator(network, formulation, Solver(Recombine(), Common()), torch.device("cpu"), None)
    told, null, noise = (
        text.encode(["a red circle", "two blue stars on black"]),
        text.null(2),
        start_noise(0, 0, 2, (3, 8, 8)),
    )
    merged = generator(noise, told.merged(), null.merged(), 3, scale)
    assert [x.shape[1] for x in null.merged().tokens] == [1, 1]
    assert_close(merged.latents, generator(noise, told, null, 3, scale).latents, rtol=1e-10, atol=1e-10)
