"""The task behind latents: a KL autoencoder learns to give images back, if asked against a critic of patches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowzoo.autoencoders.kl_loss import KLLoss, PatchCritic, critic_loss, fooling_loss
from flowzoo.autoencoders.kl_network import KLNetwork, to_float
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.data.loader import Batch, Batches
from flowzoo.data.source import Source, shuffled
from flowzoo.randomness import generator
from flowzoo.tasks.task import Network


class Autoencoding(nn.Module):
    """An autoencoder and, if there is one, its critic: all that is trained.

    Both learn in the same step. Each sees the other as given: of the critic's opinion of a reconstruction the
    autoencoder gets the gradient through the image, and the critic that through its own weights.
    """

    def __init__(self, network: KLNetwork, critic: PatchCritic | None = None) -> None:
        super().__init__()
        self.network, self.critic = network, critic

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """Images [n, C, H, W] in -1..1 and normal noise [n, c, H/f, W/f].

        Returns reconstructions [n, C, H, W], mean and log variance [n, c, H/f, W/f] of the posteriors, and of a critic
        its opinions [n, 1, h, w]: of the reconstructions, for the autoencoder; of the same and of the images, for it.
        """
        given = self.network(x, noise)
        if self.critic is None:
            return given
        back = given[0]
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        return *given, functional_call(self.critic, frozen, back), self.critic(back.detach()), self.critic(x)


@dataclass(frozen=True)
class Adversary:
    """How much a critic counts. Raises ValueError for numbers below 0."""

    weight: float  # of its opinion in the autoencoder's loss
    start: int  # finished steps before it learns and counts

    def __post_init__(self) -> None:
        for name in ("weight", "start"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed is a number of at least 0")


class AutoencoderTask:
    """One autoencoder, V = 1. The images of a step and the latents drawn are functions of (seed, step)."""

    compiled = True  # 1.6 times as fast: norms and activations between convolutions are bound by memory

    def __init__(
        self,
        loss: KLLoss,
        val: Source,
        latent_shape: tuple[int, int, int],
        *,
        adversary: Adversary | None = None,
        seed: int,
        val_samples: int,
        batch_size: int,
        stream: Callable[[torch.device], Batches],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`latent_shape` is (c, H/f, W/f); `stream` makes the batches on a device; `dtype` is that of the weights.

        Validation gives back the posteriors' means, as the finished autoencoder does, of `val_samples` images of `val`,
        without the critic.
        """
        self.loss, self.val, self.latent_shape, self.adversary = loss, val, latent_shape, adversary
        self.dtype = dtype
        self.seed, self._val_samples, self._batch_size, self._stream = seed, val_samples, batch_size, stream
        self._held_out: Tensor | None = None
        self._batches: Batches | None = None

    @property
    def waited(self) -> float:
        return self._batches.wait if self._batches else 0.0

    def begin(self, device: torch.device, rank: int, world: int) -> None:
        """ValueError for several processes."""
        if world > 1:
            raise ValueError(f"an autoencoder is trained by one process, not by {world}")
        self.device = device
        if isinstance(self.loss.perceptual, nn.Module):
            self.loss.perceptual.to(device, self.dtype)
        self._batches = self._stream(device)

    def batches(self, step: int) -> Iterator[Batch]:
        assert self._batches is not None
        return self._batches.iterate(step)

    def inputs(self, batch: Batch, step: int) -> tuple[Tensor, ...]:
        """Images in -1..1, noise [B, c, H/f, W/f], and whether the critic counts: 0 or 1, []."""
        x = to_float(batch.images, self.dtype)
        gen = generator(self.seed, step, "posterior", self.device)
        noise = torch.randn(len(x), *self.latent_shape, generator=gen, device=self.device, dtype=x.dtype)
        counts = self.adversary is not None and step >= self.adversary.start
        return x, noise, x.new_tensor(float(counts))

    def parts(self, inputs: tuple[Any, ...], n: int) -> Iterator[tuple[Any, ...]]:
        x, noise, counts = inputs
        return ((*one, counts) for one in zip(x.chunk(n), noise.chunk(n), strict=True))

    def losses(self, network: StackedBackbone, weights: Mapping[str, Tensor], *inputs: Any) -> Tensor:
        """[1]"""
        x, _, counts = inputs
        back, mean, log_variance, *opinions = network.call(weights, *inputs[:2])
        loss = self.loss(back, mean, log_variance, x[None])
        if self.adversary:
            fooling, fake, real = opinions
            loss = loss + counts * (self.adversary.weight * fooling_loss(fooling) + critic_loss(real, fake))
        return loss

    def validate(self, network: Network) -> Tensor:
        """[1, batches], of whole batches as large as those of training."""
        if self._held_out is None:
            indices = shuffled(self.val, min(self._val_samples, len(self.val)))
            self._held_out = torch.from_numpy(self.val.images(indices)).to(self.device)
        images, size = self._held_out, min(self._batch_size, len(self._held_out))
        losses = []
        with torch.no_grad():
            for first in range(0, len(images) - size + 1, size):
                x = to_float(images[first : first + size], self.dtype)
                means = x.new_zeros(size, *self.latent_shape)
                back, mean, log_variance, *_ = network(x, means)
                losses.append(self.loss(back, mean, log_variance, x[None]))
        return torch.stack(losses, 1)
