"""Classifier-free guidance around a backbone, as the network that a solver calls."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Coefficients
from flowzoo.sampling.solver import Net


def guided(
    backbone: Callable[[Tensor, Tensor, Text], Tensor],
    text: Text,
    null: Text | None,
    scale: float,
    lead: int = 1,
    interval: tuple[float, float] | None = None,
) -> Net:
    """uncond + scale (cond - uncond) on all channels, both in one forward of 2B where both texts are equally long.

    `text` and `null` have the batch size of z [B, ...], whose data may have any number of axes. Scale 1 is the
    conditional network alone and 0 the unconditional one, without a second pass. The records may hold one value for
    all, [], or one a sample, [B, 1, ...]. The result has z's dtype. `lead` is how many axes of z come before the
    data's: 2 for a stack of V variants, with z [V, B, ...], records [V, 1 or B, 1, ...] and labels [V, B]; the text is
    the same for all. `null` may be any other text, a negative prompt, from which guidance then leads away. With an
    `interval` (low, high) of sigma = b/a there is guidance at levels low < sigma <= high alone, and elsewhere the
    conditional network (Kynkaanniemi et al. 2024, arXiv 2404.07724). Raises ValueError where `null` is needed and None.
    """

    def inputs(z: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        return c.c_in * z, c.label.float().reshape(c.label.shape[:lead]).expand(z.shape[:lead])

    def single(text: Text) -> Net:
        return lambda z, c: backbone(*inputs(z, c), text).to(z.dtype)

    conditional = single(text)
    if scale == 1:
        return conditional
    if null is None:
        raise ValueError(f"guidance scale {scale} needs the null text")
    if interval is not None:
        return _within(interval, guided(backbone, text, null, scale, lead), conditional)
    if scale == 0:
        return single(null)

    def combined(cond: Tensor, uncond: Tensor) -> Tensor:
        return uncond + scale * (cond - uncond)  # Ho and Salimans 2022, eq. 6, with scale = 1 + w

    if [x.shape for x in text.tokens] != [x.shape for x in null.tokens] or text.counts != null.counts:
        without = single(null)
        return lambda z, c: combined(conditional(z, c), without(z, c))

    both = Text(
        tuple(torch.cat(pair) for pair in zip(text.tokens, null.tokens, strict=True)),
        tuple(torch.cat(pair) for pair in zip(text.pooled, null.pooled, strict=True)),
        text.counts,
    )

    def net(z: Tensor, c: Coefficients) -> Tensor:
        z_in, label = inputs(z, c)
        samples = lead - 1  # their axis
        out = backbone(torch.cat([z_in, z_in], samples), torch.cat([label, label], samples), both)
        return combined(*out.to(z.dtype).chunk(2, samples))

    return net


def _within(interval: tuple[float, float], inside: Net, outside: Net) -> Net:
    low, high = interval

    def net(z: Tensor, c: Coefficients) -> Tensor:
        sigma = c.b / c.a  # infinite where a = 0
        here = (low < sigma) & (sigma <= high)
        if here.all():
            return inside(z, c)
        if not here.any():
            return outside(z, c)
        return torch.where(here, inside(z, c), outside(z, c))  # variants of a stack, each at a level of its own

    return net
