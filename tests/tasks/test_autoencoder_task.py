"""The task that trains autoencoders: losses, draws, and the two players' gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flowzoo.autoencoders.kl_loss import KLLoss, PatchCritic, critic_loss, fooling_loss
from flowzoo.autoencoders.kl_network import KLNetwork, to_float
from flowzoo.backbones.stacked import Single
from flowzoo.data.loader import Batches
from flowzoo.tasks.autoencoder import Adversary, AutoencoderTask, Autoencoding
from flowzoo.tasks.task import Network


def players(critic: bool = True) -> Autoencoding:
    """Random, also where training begins with zeros, in float64."""
    torch.manual_seed(0)
    module = Autoencoding(KLNetwork(3, 4, 4, (8, 8, 8), 1), PatchCritic(3, width=8) if critic else None).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return module


def task(numbers: Any, adversary: Adversary | None = None, seed: int = 0) -> AutoencoderTask:
    def stream(device: torch.device) -> Batches:
        return Batches(numbers, None, batch_size=6, seed=seed, device=device)

    made = AutoencoderTask(
        KLLoss(kl=0.01),
        numbers,
        (4, 8, 8),
        adversary=adversary,
        seed=seed,
        val_samples=20,
        batch_size=6,
        stream=stream,
        dtype=torch.float64,
    )
    made.begin(torch.device("cpu"), 0, 1)
    return made


def inputs(made: AutoencoderTask, first: int, step: int) -> tuple[Tensor, ...]:
    batches = made.batches(first)
    return [made.inputs(next(batches), at) for at in range(first, step + 1)][-1]


def test_a_step_is_a_function_of_seed_and_step(numbers: Any) -> None:
    x, noise, counts = inputs(task(numbers), 0, 3)
    assert (x.shape, noise.shape, float(counts)) == ((6, 3, 32, 32), (6, 4, 8, 8), 0.0)
    for first in (2, 3):
        again = inputs(task(numbers), first, 3)
        assert torch.equal(again[0], x)
        assert torch.equal(again[1], noise)
    assert not torch.equal(inputs(task(numbers, seed=1), 3, 3)[1], noise)
    assert not torch.equal(inputs(task(numbers), 4, 4)[1], noise)


def test_the_mean_loss_of_its_parts_is_that_of_a_batch(numbers: Any) -> None:
    made, network = task(numbers, Adversary(0.5, 0)), Single(players())
    weights, batch = network.cut(network.flat), inputs(task(numbers, Adversary(0.5, 0)), 0, 0)
    parts = [made.losses(network, weights, *part) for part in made.parts(batch, 3)]
    torch.testing.assert_close(torch.stack(parts).mean(0), made.losses(network, weights, *batch))


def called(network: Single) -> Network:
    """As the program calls it."""
    return lambda *inputs: network.call(network.cut(network.flat), *inputs)


def gradients(module: Autoencoding, adversary: Adversary, *given: Tensor) -> dict[str, Tensor]:
    """Of the task's loss, by the path that the program takes."""
    network = Single(module)
    weights = {name: w.detach().requires_grad_() for name, w in network.cut(network.flat).items()}
    made = AutoencoderTask(
        KLLoss(kl=0.01),
        None,
        (4, 8, 8),
        adversary=adversary,
        seed=0,
        val_samples=1,
        batch_size=1,
        stream=None,  # type: ignore[arg-type]
    )
    loss = made.losses(network, weights, *given)
    assert loss.shape == (1,)
    found = torch.autograd.grad(loss.sum(), list(weights.values()))
    return {name: g[0] for name, g in zip(weights, found, strict=True)}


def test_each_player_gets_the_gradient_of_its_own_loss() -> None:
    """As two losses, two networks and two backward passes give it."""
    module = players()
    assert module.critic is not None
    gen = torch.Generator().manual_seed(1)
    x = torch.rand(5, 3, 32, 32, generator=gen, dtype=torch.float64) * 2 - 1
    noise = torch.randn(5, 4, 8, 8, generator=gen, dtype=torch.float64)
    found = gradients(module, Adversary(0.3, 0), x, noise, torch.tensor(1.0, dtype=torch.float64))
    back, mean, log_variance = module.network(x, noise)
    own = KLLoss(kl=0.01)(back[None], mean[None], log_variance[None], x[None])
    own = own + 0.3 * fooling_loss(module.critic(back)[None])
    expected = torch.autograd.grad(own.sum(), list(module.network.parameters()), retain_graph=True)
    for (name, _), g in zip(module.network.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[f"network.{name}"], g)
    judged = critic_loss(module.critic(x)[None], module.critic(back.detach())[None])
    expected = torch.autograd.grad(judged.sum(), list(module.critic.parameters()))
    for (name, _), g in zip(module.critic.named_parameters(), expected, strict=True):
        torch.testing.assert_close(found[f"critic.{name}"], g)
    assert expected[0].abs().max() > 0


def test_before_its_start_the_critic_neither_counts_nor_learns() -> None:
    module = players()
    gen = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 32, 32, generator=gen, dtype=torch.float64) * 2 - 1
    noise = torch.randn(2, 4, 8, 8, generator=gen, dtype=torch.float64)
    found = gradients(module, Adversary(0.3, 9), x, noise, torch.tensor(0.0, dtype=torch.float64))
    assert all(g.abs().max() == 0 for name, g in found.items() if name.startswith("critic."))
    back, mean, log_variance = module.network(x, noise)
    loss = KLLoss(kl=0.01)(back[None], mean[None], log_variance[None], x[None])
    for (name, _), g in zip(
        module.network.named_parameters(),
        torch.autograd.grad(loss.sum(), list(module.network.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(found[f"network.{name}"], g)


def test_the_critic_counts_from_its_start_on(numbers: Any) -> None:
    made = task(numbers, Adversary(0.1, start=2))
    assert [float(inputs(made, 0, step)[2]) for step in range(4)] == [0, 0, 1, 1]


def test_validation_gives_back_the_means(numbers: Any) -> None:
    """Of whole batches of held-out images, without the critic."""
    module = players()
    made = task(numbers, Adversary(0.3, 0))
    losses = made.validate(called(Single(module)))
    assert losses.shape == (1, 3)
    assert made._held_out is not None
    x = to_float(made._held_out[:6], torch.float64)
    mean, log_variance = module.network.encode(x)
    expected = KLLoss(kl=0.01)(module.network.decode(mean)[None], mean[None], log_variance[None], x[None])
    torch.testing.assert_close(losses[:, 0], expected)


def test_one_process_trains_it(numbers: Any) -> None:
    with pytest.raises(ValueError, match="trained by one process, not by 2"):
        task(numbers).begin(torch.device("cpu"), 1, 2)


@pytest.mark.parametrize(("weight", "start"), [(-1.0, 0), (0.1, -1)])
def test_numbers_below_zero_are_refused(weight: float, start: int) -> None:
    with pytest.raises(ValueError, match="allowed is a number of at least 0"):
        Adversary(weight, start)
