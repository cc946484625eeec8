"""A training run in plain torch: what flowzoo's trainers, alone and stacked, must compute.

The formulas are those of `paper`. Of flowzoo there are the networks and what defines the data: images, captions,
word encoders, and the random numbers of (seed, step, purpose).
"""

from collections.abc import Sequence

import torch
from paper import Formulation
from torch import Tensor, nn

from flowzoo.data.source import Source
from flowzoo.encoders.text import Text, TextEncoder
from flowzoo.randomness import generator, uniform


def train(
    net: nn.Module, formulation: Formulation, source: Source, encoders: Sequence[TextEncoder],
    *, mean: Tensor, std: Tensor, seed: int, steps: int, batch_size: int, lr: float, betas: tuple[float, float],
    eps: float, weight_decay: float, warmup_steps: int, decay_to: float, clip_norm: float | None,
    ema_every: int, ema_decay: float, bias_correction: bool,
) -> tuple[list[float], list[float], dict[str, Tensor]]:  # fmt: skip
    """Trains `net` in float64. Returns each step's loss and gradient norm, and the average of the weights by name."""
    net.double()
    adamw = torch.optim.AdamW(net.parameters(), betas=betas, eps=eps, weight_decay=weight_decay)
    average = {name: p.detach() * (not bias_correction) for name, p in net.named_parameters()}
    losses, norms, updates = [], [], 0
    for step in range(steps):
        # text embeddings are kept in half precision (table 7)
        images, captions = batch(source, seed, step, batch_size)
        pairs = [[x.half().double() for x in encoder.encode(captions)] for encoder in encoders]
        # each encoder is dropped on its own, so that a tenth of the samples has no text at all (sec. B.3)
        kept = torch.rand((batch_size, len(pairs)), generator=generator(seed, step, "text")) >= 0.1 ** (1 / len(pairs))
        text = Text(
            tuple(tokens * kept[:, i, None, None] for i, (tokens, _) in enumerate(pairs)),
            tuple(pooled * kept[:, i, None] for i, (_, pooled) in enumerate(pairs)),
        )
        x0 = (images.double() / 255 - mean[:, None, None]) / std[:, None, None]
        noise = torch.randn(x0.shape, generator=generator(seed, step, "eps"), dtype=torch.float64)
        row = formulation(uniform((batch_size,), generator(seed, step, "u")))
        a, b, p, q, c_in = (x[:, None, None, None] for x in row[:5])
        out = net(c_in * (a * x0 + b * noise), row.label.float(), text)
        loss = ((out - (p * x0 + q * noise)) ** 2).mean()
        adamw.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(net.parameters(), clip_norm or float("inf")).item())
        losses.append(loss.item())
        # linear warm-up to lr at step number `warmup_steps`, then linear to decay_to * lr at the last step
        warm = min(1.0, (step + 1) / warmup_steps)
        past = max(0, step - warmup_steps) / (steps - warmup_steps)
        adamw.param_groups[0]["lr"] = lr * warm * (1 + (decay_to - 1) * past)
        adamw.step()
        if (step + 1) % ema_every == 0:
            updates += 1
            for name, p_ in net.named_parameters():
                average[name] = ema_decay * average[name] + (1 - ema_decay) * p_.detach()
    correction = 1 - ema_decay**updates if bias_correction else 1.0
    return losses, norms, {name: x / correction for name, x in average.items()}


def batch(source: Source, seed: int, step: int, size: int) -> tuple[Tensor, list[str]]:
    """Images and captions number step * size onward of shuffled epochs laid end to end."""
    n = len(source)
    places = range(step * size, (step + 1) * size)
    order = [torch.randperm(n, generator=generator(seed, place // n, "order"))[place % n].item() for place in places]
    draws = torch.randint(0, 2**31, (size,), generator=generator(seed, step, "caption")).tolist()
    told = [source.captions(int(i)) for i in order]
    captions = [texts[draw % len(texts)] for texts, draw in zip(told, draws, strict=True)]
    return torch.from_numpy(source.images([int(i) for i in order])), captions
