"""Laws that every backbone keeps."""

import pytest
import torch
from hydra.errors import InstantiationException

from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.encoders.text import Text, TextSpec


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 16, 16), (3, 24, 16), (2, 8, 40)])
def test_any_size_that_patches_divide(name, make, inputs, randomise, batch, height, width):
    z, label, text = inputs(batch, height, width)
    out = randomise(make(name))(z, label, text)
    assert out.shape == z.shape
    assert out.isfinite().all()
    assert (out.flatten(1).std(1) > 0).all()


def test_untrained_is_zero(name, make, inputs):
    assert (make(name)(*inputs()) == 0).all()


def test_other_sizes_are_refused(name, make, inputs):
    with pytest.raises(ValueError, match=r"18.*patch_size=4"):
        make(name)(*inputs(height=18))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"heads": 3}, "width=32 .* heads=3"),
        ({"width": 100, "heads": None}, "width=100 .* multiple of 64"),
        ({"depth": 0}, "depth=0"),
        ({"patch_size": 3}, "patch_size=3"),
        ({"width": 34, "heads": 1}, "width=34"),
        ({"size": (18, 16)}, "size=18 x 16"),
        ({"size": (16, 18)}, "size=16 x 18"),
        ({"text": TextSpec((), (), ())}, "at least one"),
    ],
)
def test_misfits_are_refused_by_name(name, make, overrides, words):
    with pytest.raises(InstantiationException, match=words) as caught:
        make(name, **overrides)
    assert isinstance(caught.value.__cause__, ValueError)


def test_width_follows_depth(name, make):
    net = make(name, depth=2, width=None, heads=None)
    assert net.condition.label.out.out_features == 128
    assert {m.heads for m in net.modules() if hasattr(m, "heads")} == {2}


def test_samples_of_a_batch_do_not_meet(name, make, inputs, randomise):
    net = randomise(make(name).double())
    z, label, text = inputs(3, dtype=torch.float64)
    together = net(z, label, text)
    for i in range(3):
        alone = net(z[[i]], label[[i]], Text(*(tuple(x[[i]] for x in part) for part in text)))
        torch.testing.assert_close(together[[i]], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variants", [1, 2])
@pytest.mark.parametrize("reached", [(2, 3), (0, 0), (5, 1)])
def test_equal_tokens_are_one_that_counts(name, make, inputs, randomise, dtype, tolerance, variants, reached):
    """Outputs, losses and gradients; of V = 1 and 2, with some text, with none, and with an encoder that is full."""
    spec = TextSpec(lengths=(5, 9), dims=(5, 7), pooled=(4, 0))
    stack = StackedBackbone([randomise(make(name, text=spec, depth=2), seed) for seed in range(variants)]).to(dtype)
    z, label, text = inputs(3, spec=spec, dtype=dtype)
    text = text._replace(
        tokens=tuple(x * (torch.arange(x.shape[1]) < n)[:, None] for x, n in zip(text.tokens, reached, strict=True))
    )
    merged = text.merged()
    assert [x.shape[1] for x in merged.tokens] == [
        min(n + 1, full) for n, full in zip(reached, spec.lengths, strict=True)
    ]

    def run(told):
        out = stack(z.expand(variants, *z.shape), label.expand(variants, -1), told)
        losses = (out - z).square().flatten(1).mean(1)
        return out, losses, *torch.autograd.grad(losses.sum(), stack.flat)

    for one, other in zip(run(merged), run(text), strict=True):
        scale = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


def test_every_part_of_the_text_matters_and_token_order_does_not(name, make, inputs, randomise):
    net = randomise(make(name).double())
    z, label, text = inputs(dtype=torch.float64)
    before = net(z, label, text)
    for i in range(2):
        zeroed = text._replace(tokens=tuple(x * (j != i) for j, x in enumerate(text.tokens)))
        assert (net(z, label, zeroed) - before).abs().mean() > 1e-3 * before.abs().mean()
        turned = text._replace(tokens=tuple(x.flip(1) if j == i else x for j, x in enumerate(text.tokens)))
        torch.testing.assert_close(net(z, label, turned), before, rtol=0, atol=1e-10)
    unpooled = text._replace(pooled=(torch.zeros_like(text.pooled[0]), text.pooled[1]))
    assert (net(z, label, unpooled) - before).abs().mean() > 1e-3 * before.abs().mean()


def test_pooled_vectors_of_no_width_are_skipped(name, make, inputs, randomise):
    spec = TextSpec(lengths=(3,), dims=(5,), pooled=(0,))
    net = make(name, text=spec)
    assert net.condition.pooled is None
    assert randomise(net)(*inputs(spec=spec)).isfinite().all()


def test_levels_are_distinguished(name, make, inputs, randomise):
    net = randomise(make(name).double())
    z, label, text = inputs(dtype=torch.float64)
    low, near, high = (net(z, torch.full_like(label, level), text) for level in (100.0, 101.0, 900.0))
    assert (high - low).norm() > 0.05 * low.norm()
    assert (high - low).norm() > 2 * (near - low).norm()


def test_vmap_over_stacked_weights_is_a_loop(name, make, inputs, randomise):
    nets = [randomise(make(name).double(), seed) for seed in range(2)]
    z, label, text = inputs(dtype=torch.float64)
    zs, labels = torch.stack([z, 2 * z]), torch.stack([label, label / 2])
    state = torch.func.stack_module_state(nets)

    def call(state, z, label):
        return torch.func.functional_call(nets[0], state, (z, label, text))

    stacked = torch.func.vmap(call)(state, zs, labels)
    for net, out, z, label in zip(nets, stacked, zs, labels, strict=True):
        torch.testing.assert_close(out, net(z, label, text), rtol=0, atol=1e-10)


@pytest.mark.parametrize("height", [16, 24])
def test_compiles_whole_and_in_place(name, make, inputs, randomise, height):
    net = randomise(make(name, depth=2))
    z, label, text = inputs(height=height)
    given = (z, label, text._replace(counts=(2, 3)) if height == 24 else text)
    expected, names = net(*given), list(net.state_dict())
    torch._dynamo.reset()
    net.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(net(*given), expected, rtol=1e-5, atol=1e-5)
    assert list(net.state_dict()) == names


def test_training_reaches_every_parameter(name, make, inputs):
    net = make(name).double()
    given = inputs(dtype=torch.float64)
    target = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(5):  # zero-initialised layers wake one after another, from the last to the first
        optimiser.zero_grad()
        (net(*given) - target).square().mean().backward()
        optimiser.step()
    asleep = [name for name, p in net.named_parameters() if p.grad is None or not (p.grad.abs().amax() > 1e-12)]
    assert asleep == []


def test_without_qk_norm_only_its_scales_are_gone(name, make, inputs, randomise):
    with_norm, without = make(name), make(name, qk_norm=False)
    gone = set(with_norm.state_dict()) - set(without.state_dict())
    assert gone
    assert gone == {key for key in with_norm.state_dict() if ".norms." in key}
    assert set(without.state_dict()) < set(with_norm.state_dict())
    assert randomise(without)(*inputs()).isfinite().all()


@pytest.mark.filterwarnings("error:Mismatch dtype")
def test_bfloat16_autocast(name, make, inputs, randomise):
    net = randomise(make(name))
    given = inputs()
    exact = net(*given)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(*given)
    assert (rounded - exact).norm() < 0.1 * exact.norm()
