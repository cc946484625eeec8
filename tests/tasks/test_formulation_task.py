import pytest
import torch
from torch.testing import assert_close

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.data.loader import Batches
from flowzoo.data.shapes import Shapes
from flowzoo.encoders.text import Text, TextEncoders, unmerged
from flowzoo.encoders.words import WordEncoder
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.schedule import RF
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.formulation.target import Velocity
from flowzoo.formulation.timestep import Uniform
from flowzoo.tasks.formulation import FormulationTask, draw_kept


def test_what_is_dropped_does_not_depend_on_the_precision_of_training() -> None:
    text = TextEncoders({"one": WordEncoder(4, 8), "two": WordEncoder(4, 8)})
    kept = draw_kept(0, 3, text, 200, torch.device("cpu"))
    try:
        torch.set_default_dtype(torch.float64)  # as Lightning does where trainer.precision=64-true
        assert draw_kept(0, 3, text, 200, torch.device("cpu")).equal(kept)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_no_caption_reaches_is_computed_once(seeds: tuple[int, ...]) -> None:
    """Of all steps and seeds alike; losses and validation are those of every token."""
    train, val = (Shapes(split, 16, size=20) for split in ("train", "val"))
    text = TextEncoders({"many": WordEncoder(40, 8), "few": WordEncoder(2, 8)})
    latents = Latents(Pixels(3), [127.0] * 3, [60.0] * 3)
    formulation = StackedFormulation([Formulation(RF(), Velocity(), Uniform())] * len(seeds))
    network = StackedBackbone(
        [MMDiT(channels=3, size=(16, 16), text=text.spec, patch_size=4, depth=1, width=32, heads=2) for _ in seeds]
    )
    torch.nn.init.normal_(network.flat, std=0.1)

    def stream(device: torch.device, seeds: list[int], rank: int, world: int) -> list[Batches]:
        first = Batches(train, text, batch_size=4, seed=seeds[0], device=device)
        return [first, *map(first.reseeded, seeds[1:])]

    def run() -> list[tuple[Text, torch.Tensor]]:
        sizes = {"val_samples": 8, "batch_size": 4}
        task = FormulationTask(formulation, latents, text, val, seeds=seeds, **sizes, stream=stream)
        task.begin(torch.device("cpu"), 0, 1)
        made = []
        for step, batch in zip(range(3), task.batches(0), strict=False):
            inputs = task.inputs(batch, step)
            made.append((inputs[2], task.losses(network, network.cut(network.flat.detach()), *inputs)))
        return [*made, (inputs[2], task.validate(network))]

    merged = run()
    with unmerged():
        whole = run()
    (longest,) = {text.tokens[0].shape[-2] for text, _ in merged}
    assert longest < 40
    for (told, loss), (every, wanted) in zip(merged, whole, strict=True):
        assert told.counts == (41 - longest, 1)
        assert all(torch.equal(x, y) for x, y in zip(told.whole().tokens, every.tokens, strict=True))
        assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
