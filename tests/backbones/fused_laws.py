"""The fused kernels against plain torch: test_fused.py has a process for it, with Triton's interpreter on the CPU, and
one without it where there is a GPU.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from flowzoo.backbones import fused
from flowzoo.backbones.fused.linear import gradients_in
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.training.program import differentiate

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TOLERANCE = 1e-5 if INTERPRETED else 5e-3  # a GPU multiplies float32 in TF32
GROUPS, EACH = 2, 2  # groups and samples a group
N = GROUPS * EACH

Function = Callable[..., Tensor | tuple[Tensor, ...]]

if INTERPRETED:
    from triton.runtime.interpreter import InterpretedFunction

    # At every call of a device function Triton prepares its language anew, in a third of all time. The launch of a
    # kernel has done so for ours, and for Triton's own, such as tl.sum, the first call does for good.
    prepared: set[str] = set()
    call = InterpretedFunction.__call__

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        module = self.fn.__module__
        if module in prepared or module.startswith("flowzoo."):
            return self.rewrite()(*args, **kwargs)
        prepared.add(module)
        return call(self, *args, **kwargs)

    InterpretedFunction.__call__ = called


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.device(DEVICE):
        yield


def outputs_and_gradients(f: Function, args: Sequence[Tensor]) -> list[Tensor]:
    """Of the sum of outputs times fixed random numbers."""
    args = [a.detach().clone().requires_grad_() for a in args]
    made = f(*args)
    made = made if isinstance(made, tuple) else (made,)
    gen = torch.Generator(DEVICE).manual_seed(1)
    total = sum((o.double() * torch.randn(o.shape, generator=gen, dtype=torch.float64)).sum() for o in made)
    return [*made, *torch.autograd.grad(total, args)]  # type: ignore[arg-type]


def check(f: Function, plain: Function, args: Sequence[Tensor]) -> None:
    got, wanted = outputs_and_gradients(f, args), outputs_and_gradients(plain, [a.double() for a in args])
    for one, other in zip(got, wanted, strict=True):
        near(one.double(), other)


def near(one: Tensor, other: Tensor, factor: float = 1.0) -> None:
    scale = max(1.0, float(other.detach().abs().max()))
    torch.testing.assert_close(one, other, rtol=0, atol=factor * TOLERANCE * scale)


def each(x: Tensor) -> Tensor:
    """What belongs to a group, [G, ...], for each of its samples [G * EACH, 1, ...]."""
    return x.repeat_interleave(EACH, 0)[:, None]


def normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


@pytest.mark.parametrize(("length", "width"), [(37, 48), (130, 64), (3, 16)])
def test_an_update_is_added_and_the_sum_normed(length: int, width: int) -> None:
    def plain(x: Tensor, a: Tensor, bias: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        gate, shift, scale = vectors.chunk(3, -1)
        y = x + gate[:, None] * (a + each(bias))
        return y, normed(y, shift, scale)

    x, a = torch.randn(N, length, width), torch.randn(N, length, width)
    args = (x, a, torch.randn(GROUPS, width), torch.randn(N, 3 * width))
    check(lambda x, a, bias, vectors: fused.add_norm(x, a, bias, *vectors.chunk(3, -1)), plain, args)


def test_a_modulated_norm() -> None:
    args = (torch.randn(N, 70, 48), torch.randn(N, 96))
    check(lambda x, v: fused.modulated_norm(x, *v.chunk(2, -1)), lambda x, v: normed(x, *v.chunk(2, -1)), args)


def test_gelu_of_a_sum_with_a_bias() -> None:
    args = (torch.randn(N, 50, 300), torch.randn(GROUPS, 300))
    check(fused.bias_gelu, lambda y, b: F.gelu(y + each(b), approximate="tanh"), args)


@pytest.mark.parametrize("groups", [1, GROUPS])
def test_a_product_with_each_groups_matrix(groups: int) -> None:
    args = (torch.randn(N, 5, 30), torch.randn(groups, 20, 30))
    check(
        fused.product,
        lambda x, w: torch.einsum("gnlf,gof->gnlo", x.unflatten(0, (groups, -1)), w).flatten(0, 1),
        args,
    )


@pytest.mark.parametrize("groups", [1, GROUPS])
def test_gradients_of_weights_are_written_where_they_belong(groups: int) -> None:
    """What uses a weight again, or a part of it, is left to be added."""
    rows = torch.randn(groups, 30 * 20 + 50)
    weight = rows[:, 7 : 7 + 600].view(groups, 20, 30).requires_grad_()
    other = torch.randn(groups, 20, 30, requires_grad=True)
    x = torch.randn(N, 5, 30, requires_grad=True)

    def total(uses: int) -> Tensor:
        ways = (lambda w: w, lambda w: 3 * w, lambda w: w[:, :4], lambda w: w)[:uses]
        return torch.stack([fused.product(x, way(w)).square().sum() for way in ways for w in (weight, other)]).sum()

    for uses in (1, 3, 4):
        dw, d_other, dx = torch.autograd.grad(total(uses), (weight, other, x))
        gradient = torch.zeros_like(rows)
        place = gradient[:, 7 : 7 + 600].view(groups, 20, 30)
        with gradients_in([weight], [place]) as written:
            rest, *outside = torch.autograd.grad(total(uses), (weight, other, x), allow_unused=True)
        assert written == {0}
        assert (rest is None) == (uses == 1)
        near(place if rest is None else place + rest, dw)
        assert gradient.count_nonzero() == place.count_nonzero()
        for one, same in zip(outside, (d_other, dx), strict=True):
            assert torch.equal(one, same)


def attention(heads: int, norm: bool) -> Callable[..., tuple[Tensor, ...]]:
    """In plain torch, of streams' packed projections and biases; the last argument are the norms' weights."""

    def plain(*args: Tensor) -> tuple[Tensor, ...]:
        *streams, weights = args
        width = streams[0].shape[-1] // 3
        parts = []
        for k in range(len(streams) // 2):
            packed = streams[2 * k] + each(streams[2 * k + 1])
            own = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in packed.split(width, -1)]
            if norm:
                own[:-1] = [
                    F.rms_norm(x, x.shape[-1:], None, 1e-6) * each(weights[:, 2 * k + 2 - len(own[:-1]) + i])[:, None]
                    for i, x in enumerate(own[:-1])
                ]
            parts.append(own)
        looking = [own[0] for own in parts if len(own) == 3]
        k, v = (torch.cat([own[place] for own in parts], 2) for place in (-2, -1))
        out = F.scaled_dot_product_attention(torch.cat(looking, 2), k, v).transpose(1, 2).flatten(2)
        return tuple(out.split([q.shape[2] for q in looking], 1))

    return plain


SECOND = ("queries, keys and values", "keys and values", "none")  # what the second stream has


def short(*streams_and_weights: Tensor, heads: int, norm: bool, key_bias: Tensor | None = None) -> list[Tensor]:
    return list(fused.joint_attention(*streams_and_weights, key_bias, heads, norm))


def long(*streams_and_weights: Tensor, heads: int, norm: bool, key_bias: Tensor | None = None) -> list[Tensor]:
    return list(fused.long_attention(*streams_and_weights, key_bias, heads, norm))


@pytest.mark.parametrize(
    ("way", "lengths", "second", "norm"),
    [
        *((short, (20, 7), second, norm) for second in SECOND for norm in (True, False)),
        *((long, (70, 67), second, norm) for second, norm in zip(SECOND, (True, False, True), strict=True)),
    ],
)
def test_attention_of_packed_streams(
    way: Callable[..., list[Tensor]], lengths: tuple[int, int], second: str, norm: bool
) -> None:
    heads, d = 2, 16
    width = heads * d
    first = [torch.randn(N, lengths[0], 3 * width), torch.randn(GROUPS, 3 * width)]
    wide = (3 if second.startswith("queries") else 2) * width
    other = [torch.randn(N, lengths[1], wide), torch.randn(GROUPS, wide)]
    weights = torch.randn(GROUPS, 4, d)
    streams = first if second == "none" else [*first, *other]

    def given(*args: Tensor) -> tuple[Tensor, ...]:
        *own, last = args
        if second == "none":
            own += [own[0][:, :0], own[1]]
        made = way(*own, last, heads=heads, norm=norm)
        return tuple(made if wide == 3 * width and second != "none" else made[:1])

    def plain(*args: Tensor) -> tuple[Tensor, ...]:
        made = attention(heads, norm)(*args)
        return (*made[:-1], made[-1] + 0 * args[-1].sum())  # the weights have a gradient, of 0, without norms too

    check(given, plain, (*streams, weights))


@pytest.mark.parametrize(("way", "lengths"), [(short, (20, 7)), (long, (70, 67))])
@pytest.mark.parametrize("second", SECOND)
def test_a_key_that_stands_for_several(way: Callable[..., list[Tensor]], lengths: tuple[int, int], second: str) -> None:
    """A bias of ln n on the last token's key, in each group another n, is that token n times."""
    heads, d = 2, 16
    width, times = heads * d, (2, 5)
    wide = (3 if second.startswith("queries") else 2) * width
    streams = [torch.randn(N, lengths[0], 3 * width), torch.randn(GROUPS, 3 * width)]
    if second != "none":
        streams += [torch.randn(N, lengths[1], wide), torch.randn(GROUPS, wide)]
    weights = torch.randn(GROUPS, 4, d)
    keys = sum(x.shape[1] for x in streams[::2])
    key_bias = torch.zeros(GROUPS, keys)
    key_bias[:, -1] = torch.tensor(times).log()

    def given(*args: Tensor) -> tuple[Tensor, ...]:
        *own, last = args
        if second == "none":
            own += [own[0][:, :0], own[1]]
        made = way(*own, last, heads=heads, norm=True, key_bias=key_bias)
        return tuple(made if wide == 3 * width and second != "none" else made[:1])

    def plain(*args: Tensor) -> tuple[Tensor, ...]:
        groups = []
        for group, n in enumerate(times):
            some = slice(group * EACH, (group + 1) * EACH)
            *own, last = [x[some] if len(x) == N else x[[group]] for x in args]
            own[-2] = torch.cat([own[-2], own[-2][:, -1:].expand(-1, n - 1, -1)], 1)
            made = attention(heads, True)(*own, last)
            groups.append([x[:, :length] for x, length in zip(made, lengths, strict=False)])
        return tuple(map(torch.cat, zip(*groups, strict=True)))

    check(given, plain, (*streams, weights))


@pytest.mark.parametrize("lengths", [(20, 20), (70, 122), (67, 5)])
def test_attention_of_queries_keys_and_values(lengths: tuple[int, int]) -> None:
    q, (k, v) = torch.randn(2, 3, lengths[0], 16), torch.randn(2, 2, 3, lengths[1], 16)
    check(fused.attend, F.scaled_dot_product_attention, (q, k, v))
    mapped = vmap(fused.attend, in_dims=(1, 1, 1), out_dims=1)(*(x[:, :, None] for x in (q, k, v)))
    near(mapped[:, :, 0], fused.attend(q, k, v))
    bias = torch.randn(2, lengths[1])
    masked = lambda *qkv: F.scaled_dot_product_attention(*qkv, bias[:, None, None].to(qkv[0].dtype))  # noqa: E731
    check(lambda *qkv: fused.attend(*qkv, bias), masked, (q, k, v))
    of_one = lambda *qkv: fused.attend(*qkv, bias[:1])  # noqa: E731
    mapped = vmap(of_one, in_dims=(1, 1, 1), out_dims=1)(*(x[:, :, None] for x in (q, k, v)))
    near(mapped[:, :, 0], of_one(q, k, v))


@pytest.mark.parametrize(("way", "lengths"), [(short, (20, 7)), (long, (67, 5))])
def test_scores_far_below_zero(way: Callable[..., list[Tensor]], lengths: tuple[int, int]) -> None:
    """Weights of tokens beyond the end of a block, whose scores are 0, are then out of all bounds."""
    heads, d = 2, 16
    away = torch.cat([torch.full((heads * d,), x) for x in (12.0, -12.0, 0.0)])
    streams = [x for length in lengths for x in (torch.randn(N, length, 3 * heads * d), away.repeat(GROUPS, 1))]
    weights = torch.ones(GROUPS, 4, d)
    got = outputs_and_gradients(lambda *a: tuple(way(*a, weights, heads=heads, norm=False)), streams)
    plain = outputs_and_gradients(
        lambda *a: attention(heads, False)(*a, weights.double()), [x.double() for x in streams]
    )
    for one, other in zip(got, plain, strict=True):
        near(one.double(), other, 10)


@pytest.mark.parametrize(("way", "lengths"), [(short, (20, 7)), (long, (67, 5))])
@pytest.mark.parametrize("wide", [2, 3])
def test_attention_mapped_over_variants_as_one_by_one(
    way: Callable[..., list[Tensor]], lengths: tuple[int, int], wide: int
) -> None:
    heads, d, variants, n = 2, 16, 2, 2
    width = heads * d
    args = [
        *(torch.randn(variants, n, lengths[0], 3 * width), torch.randn(variants, 1, 3 * width)),
        *(torch.randn(variants, n, lengths[1], wide * width), torch.randn(variants, 1, wide * width)),
        torch.randn(variants, 1, 4, d),
    ]
    key_bias = torch.randn(1, sum(lengths))  # the same for all
    of_one = lambda *own: way(*own, heads=heads, norm=True, key_bias=key_bias)[0]  # noqa: E731
    apart = lambda *all_of: torch.stack([of_one(*(x[v] for x in all_of)) for v in range(variants)])  # noqa: E731
    for one, other in zip(outputs_and_gradients(vmap(of_one), args), outputs_and_gradients(apart, args), strict=True):
        near(one, other)


def test_mapped_over_variants_as_one_by_one() -> None:
    x, a, bias = torch.randn(3, N, 9, 16), torch.randn(3, N, 9, 16), torch.randn(3, 1, 16)
    vectors = torch.randn(N, 16)  # the same for all
    f = lambda x, a, bias: fused.add_norm(x, a, bias, vectors, vectors, vectors)  # noqa: E731
    mapped = vmap(f)(x, a, bias)
    for v in range(3):
        for one, all_of in zip(f(x[v], a[v], bias[v]), mapped, strict=True):
            near(all_of[v], one)


@pytest.mark.parametrize(("side", "variants"), [(16, 2), (36, 1)])  # few tokens and many
def test_every_backbone(
    name: str, make: Any, inputs: Any, randomise: Any, side: int, variants: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if INTERPRETED and side == 36 and name in ("dit", "mmdit", "mmdit3"):
        pytest.skip("half a minute each; their streams are those of crossdit and mmdit+dual")
    with torch.device("cpu"):
        stack = StackedBackbone([randomise(make(name, depth=2), seed) for seed in range(variants)]).to(DEVICE)
        z, label, text = inputs(1, side, side)
        text = text._replace(counts=(1, 4) if side == 16 else ())
    given = (z.to(DEVICE).expand(variants, *z.shape), label.to(DEVICE).expand(variants, -1), text.to(stack.flat.device))

    def run(wanted: bool) -> list[Tensor]:
        monkeypatch.setattr(fused, "wanted", lambda _: wanted)
        weights = {key: w.detach().requires_grad_() for key, w in stack.cut(stack.flat).items()}
        out = stack.call(weights, *given)
        return [out, *torch.autograd.grad(out.square().sum(), list(weights.values()))]

    made = run(True)
    for one, other in zip(made, run(False), strict=True):
        near(one, other, 10)

    def losses(backbone: StackedBackbone, weights: Any, *given: Any) -> Tensor:
        return backbone.call(weights, *given).square().flatten(1).sum(1)

    monkeypatch.setattr(fused, "wanted", lambda _: True)
    gradient = torch.full_like(stack.flat, float("nan"))
    differentiate(losses, stack, stack.flat.detach(), gradient, *given)
    for one, other in zip(stack.cut(gradient).values(), made[1:], strict=True):
        near(one, other)
