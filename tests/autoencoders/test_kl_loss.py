import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from flowzoo.autoencoders.kl_loss import KLLoss, PatchCritic, critic_loss, divergence, fooling_loss
from flowzoo.autoencoders.kl_network import KLNetwork


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).double()


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = draw(2, 3, 4, 5, 5), draw(2, 3, 4, 5, 5) / 2
    known = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).flatten(2).sum(2)
    assert torch.allclose(divergence(mean, log_variance), known)
    assert not divergence(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)).any()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_each_of_v_networks_has_the_loss_that_it_would_have_alone(norm: str) -> None:
    def perceptual(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).flatten(1).amax(1)

    loss = KLLoss(norm, kl=1e-2, perceptual=perceptual, perceptual_weight=0.3)
    back, mean, log_variance, x = draw(2, 3, 3, 8, 8), draw(2, 3, 4, 2, 2), draw(2, 3, 4, 2, 2), draw(1, 3, 3, 8, 8)
    both = loss(back, mean, log_variance, x)
    assert both.shape == (2,)
    for v in range(2):
        alone = [each[v : v + 1] for each in (back, mean, log_variance)]
        assert torch.allclose(loss(*alone, x)[0], both[v])
    error = (back[1] - x[0]).abs() if norm == "l1" else (back[1] - x[0]) ** 2
    known = (
        error.mean() + 1e-2 * divergence(mean, log_variance)[1].mean() / 192 + 0.3 * perceptual(back[1], x[0]).mean()
    )
    assert torch.allclose(both[1], known)


def test_it_trains_a_network_through_the_drawn_latent() -> None:
    torch.manual_seed(0)
    network, x = KLNetwork(1, 2, 4, (8, 16), blocks=1), torch.rand(8, 1, 8, 8) * 2 - 1
    adam, losses = torch.optim.Adam(network.parameters(), 3e-3), []
    for _ in range(60):
        loss = KLLoss("l2", kl=1e-4)(*(out[None] for out in network(x, torch.randn(8, 4, 4, 4))), x[None])
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_critic_judges_patches_of_each_image_alone() -> None:
    critic, x = PatchCritic(3, width=16, layers=2), draw(4, 3, 16, 16).float()
    assert critic(x).shape == (4, 1, 4, 4)
    torch.testing.assert_close(critic(x)[1:2], critic(x[1:2]))


def test_hinge_losses() -> None:
    real, fake = torch.tensor([[2.0, 0.5], [1.0, 1.0]]), torch.tensor([[-2.0, 0.0], [-1.0, -1.0]])
    assert critic_loss(real, fake).tolist() == [0.5 * (0.25 + 0.5), 0.0]
    assert fooling_loss(fake).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("more", "message"),
    [({"norm": "l3"}, "norm=l3: allowed are l1, l2"), ({"kl": -1.0}, "kl=-1.0: allowed is a number")],
)
def test_mistakes_are_named(more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLLoss(**more)
