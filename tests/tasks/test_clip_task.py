"""CLIP's loss, and the task that trains it."""

from typing import Any

import torch
import torch.nn.functional as F

from flowzoo.backbones.stacked import Single
from flowzoo.encoders.clip import build_clip
from flowzoo.metrics.clip_data import Augment, load_set
from flowzoo.tasks.clip import ClipTask, Contrastive, contrastive_loss


def units(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_distinct_captions_give_clips_loss() -> None:
    image, text, scale = units(6, 0), units(6, 1), torch.tensor(7.0, dtype=torch.float64)
    logits = scale * image @ text.T
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(image, text, scale, labels), expected)


def test_equal_captions_are_hits_and_not_negatives() -> None:
    captions = torch.tensor([0, 1, 0, 2, 1, 0])
    image, text = units(6, 0).requires_grad_(), units(3, 1)[captions]
    scale = torch.tensor(5.0, dtype=torch.float64)
    logits = (scale * image @ text.T).detach().requires_grad_()
    # The loss as a function of logits: bring them in through an identity text.
    loss = contrastive_loss(logits, torch.eye(6, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), captions)
    (slope,) = torch.autograd.grad(loss, logits)
    equal = captions[:, None] == captions[None, :]
    assert (slope[equal] <= 0).all()  # pulled together
    assert (slope[~equal] > 0).all()  # pushed apart
    # A batch of one caption has nothing to tell apart.
    same = torch.zeros(6, dtype=torch.long)
    loss = contrastive_loss(image, text[:1].expand(6, -1), scale, same)
    assert loss.abs() < 1e-12
    assert torch.autograd.grad(loss, image)[0].abs().max() < 1e-12


def test_a_batch_is_a_function_of_seed_and_step(numbers: Any) -> None:
    data = load_set(numbers, 16, workers=0)

    def batch(seed: int, first: int, at: int) -> list[torch.Tensor]:
        task = ClipTask(data, data, Augment(translate=0.1), batch_size=8, seed=seed)
        task.begin(torch.device("cpu"), 0, 1)
        batches = task.batches(first)
        return [list(next(batches)) for _ in range(at - first + 1)][-1]

    one = batch(0, 0, 3)
    assert one[0].shape == (8, 3, 32, 32)
    assert one[1].shape == (8, 16)
    for same in (batch(0, 3, 3), batch(0, 2, 3)):
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], batch(1, 3, 3)[0])
    assert not torch.equal(one[0], batch(0, 4, 4)[0])


def test_the_program_sees_the_loss_of_the_module(numbers: Any, architecture: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = Contrastive(build_clip(architecture), architecture["mean"], architecture["std"])
    data = load_set(numbers, 16, workers=0, indices=range(0, 200, 7))
    task = ClipTask(data, data, Augment(), batch_size=8, seed=0)
    task.begin(torch.device("cpu"), 0, 1)
    network = Single(module)
    weights, batch = network.cut(network.flat.detach()), next(task.batches(0))
    assert len(data.images) == 29
    torch.testing.assert_close(task.losses(network, weights, *task.inputs(batch, 0)), module(*batch)[None])
    losses = task.validate(lambda *inputs: network.call(weights, *inputs))
    assert losses.shape == (1, 3)
    first = data.images[:8].float() / 255, data.tokens[data.choices[:8, 0]].long(), data.choices[:8, 0]
    torch.testing.assert_close(losses[0, 0], module(*first))


def test_the_scale_of_the_cosines_ends_at_a_hundred(numbers: Any, architecture: dict[str, Any]) -> None:
    module = Contrastive(build_clip(architecture), architecture["mean"], architecture["std"])
    images, captions = torch.rand(4, 3, 32, 32), torch.arange(4)
    tokens = torch.arange(4)[:, None] + torch.arange(16)
    scale: Any = module.clip.logit_scale
    values = []
    for log_scale in (4.0, 4.60517019, 9.0):
        scale.data.fill_(log_scale)
        values.append(module(images, tokens, captions))
    assert values[0] != values[1]
    torch.testing.assert_close(values[1], values[2])


def test_decay_is_for_matrices(architecture: dict[str, Any]) -> None:
    network = Single(Contrastive(build_clip(architecture), [0.5] * 3, [0.5] * 3))
    cut = network.cut(network.matrices()[None])
    assert {name for name, x in cut.items() if x.any()} == {n for n, s in network.shapes.items() if len(s) >= 2}
    assert all(x.all() or not x.any() for x in cut.values())
