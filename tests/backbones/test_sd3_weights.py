import pytest
import torch

from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.positions import Cropped, Interpolated
from flowzoo.backbones.sd3_weights import load_sd3, sd3_text, to_sd3
from flowzoo.encoders.text import Text, TextSpec

diffusers = pytest.importorskip("diffusers")

GRID = Cropped(max_size=12, base=4)
SPEC = TextSpec(lengths=(7,), dims=(20,), pooled=(12,))


def theirs(randomise, qk_norm, **changes):
    config = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 5,
        "out_channels": 5,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 20,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 12,
        "pos_embed_max_size": 12,
        "qk_norm": "rms_norm" if qk_norm else None,
    }
    return randomise(diffusers.SD3Transformer2DModel(**config | changes)).eval()


def ours(qk_norm, grid=GRID, text=SPEC, **changes):
    sizes = {"patch_size": 2, "depth": 3, "width": 32, "heads": 4} | changes
    return MMDiT(channels=5, size=(8, 8), text=text, qk_norm=qk_norm, grid=grid, **sizes)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 6), (24, 18)])
def test_output_is_diffusers(randomise, qk_norm, height, width):
    reference, net = theirs(randomise, qk_norm), ours(qk_norm)
    load_sd3(reference.state_dict(), net)
    torch.manual_seed(0)
    z, tokens, pooled = torch.randn(3, 5, height, width), torch.randn(3, 7, 20), torch.randn(3, 12)
    label = torch.tensor([0.0, 437.5, 1000.0])
    with torch.no_grad():
        expected = reference(z, tokens, pooled, label).sample
        out = net(z, label, Text((tokens,), (pooled,)))
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dual", [1, 2, 3])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_output_with_the_second_attention_of_sd35_is_diffusers(randomise, qk_norm, dual):
    reference = theirs(randomise, qk_norm, dual_attention_layers=tuple(range(dual)))
    net = ours(qk_norm, dual_attention=dual)
    load_sd3(reference.state_dict(), net)
    torch.manual_seed(0)
    z, tokens, pooled = torch.randn(3, 5, 12, 6), torch.randn(3, 7, 20), torch.randn(3, 12)
    label = torch.tensor([0.0, 437.5, 1000.0])
    with torch.no_grad():
        expected = reference(z, tokens, pooled, label).sample
        out = net(z, label, Text((tokens,), (pooled,)))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("theirs_dual", "words"), [(0, "missing: .*attn2.to_q"), (2, r"extra: .*blocks\.1\.attn2")])
def test_another_number_of_second_attentions_is_refused(randomise, theirs_dual, words):
    reference = theirs(randomise, True, dual_attention_layers=tuple(range(theirs_dual)))
    with pytest.raises(ValueError, match=words):
        load_sd3(reference.state_dict(), ours(True, dual_attention=1))


def test_missing_extra_and_misshapen_are_named_and_nothing_is_loaded(randomise):
    state = theirs(randomise, True).state_dict()
    del state["context_embedder.bias"], state["transformer_blocks.2.attn.norm_added_q.weight"]
    state["proj_out.weight"] = state["proj_out.weight"][:4]
    state["transformer_blocks.0.attn2.to_q.weight"] = torch.zeros(1)
    net = ours(True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit") as caught:
        load_sd3(state, net)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: context_embedder.bias",
        "  missing: transformer_blocks.2.attn.norm_added_q.weight",
        "  extra: transformer_blocks.0.attn2.to_q.weight",
        "  shape of proj_out.weight: (4, 32), expected (20, 32)",
    ]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qk_norm": False}, "extra: transformer_blocks.0.attn.norm_q.weight"),
        ({"depth": 2}, "extra: transformer_blocks.2"),
        ({"depth": 4}, "missing: transformer_blocks.3"),
        ({"width": 64}, "shape of pos_embed.proj.weight"),
        ({"grid": Interpolated(8, 2)}, "not the table of this backbone's grid, Interpolated"),
        ({"grid": Cropped(max_size=12, base=5)}, "not the table of this backbone's grid, Cropped"),
        ({"grid": Cropped(max_size=10, base=4)}, "max_size=10"),
        ({"text": TextSpec((7, 3), (20, 4), (12, 0))}, "2 encoders"),
    ],
)
def test_another_backbone_is_refused(randomise, changes, words):
    with pytest.raises(ValueError, match=words):
        load_sd3(theirs(randomise, True).state_dict(), ours(**{"qk_norm": True} | changes))


def test_missing_table_is_named(randomise):
    state = theirs(randomise, False).state_dict()
    del state["pos_embed.pos_embed"]
    with pytest.raises(ValueError, match=r"missing: pos_embed\.pos_embed"):
        load_sd3(state, ours(False))


def back(net):
    """Diffusers' own model of the weights that go there, strictly loaded."""
    config, state = to_sd3(net)
    model = diffusers.SD3Transformer2DModel(**config).eval()
    model.load_state_dict(state, strict=True)
    return model


TWO, WITHOUT_POOLED = TextSpec((7, 3), (20, 5), (12, 4)), TextSpec((7,), (20,), (0,))


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("dual", [0, 1, 3])
@pytest.mark.parametrize("spec", [SPEC, TWO, WITHOUT_POOLED])
@pytest.mark.parametrize(("size", "grid"), [((8, 8), None), ((12, 6), None), ((6, 12), None), ((8, 8), GRID)])
def test_diffusers_computes_what_ours_does(randomise, qk_norm, dual, spec, size, grid):
    sizes = {"patch_size": 2, "depth": 3, "width": 32, "heads": 4, "dual_attention": dual}
    net = randomise(MMDiT(channels=5, size=size, text=spec, qk_norm=qk_norm, grid=grid, **sizes))
    torch.manual_seed(0)
    # a caption's empty positions are equal tokens, which ours may be told as one
    whole = Text(
        tuple(torch.randn(3, n, d) for n, d in zip(spec.lengths, spec.dims, strict=True)),
        tuple(torch.randn(3, n) for n in spec.pooled),
    )
    for x in whole.tokens:
        x[:, 2:] = 0
    z, label = torch.randn(3, 5, *size), torch.tensor([0.0, 437.5, 1000.0])
    tokens, pooled = sd3_text(whole.merged())
    with torch.no_grad():
        expected = net(z, label, whole)
        out = back(net)(z, tokens, pooled, label).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("grid", [GRID, None])
def test_there_and_back_is_bit_for_bit(randomise, qk_norm, grid):
    net, other = randomise(ours(qk_norm, grid=grid)), ours(qk_norm, grid=grid)
    load_sd3(back(net).state_dict(), other)
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in net.state_dict().items())


def test_another_size_is_diffusers_on_the_cropped_grid(randomise):
    net = randomise(ours(True))
    z, tokens, pooled = torch.randn(2, 5, 12, 6), torch.randn(2, 7, 20), torch.randn(2, 12)
    label = torch.tensor([3.0, 700.0])
    with torch.no_grad():
        out = back(net)(z, tokens, pooled, label).sample
        torch.testing.assert_close(out, net(z, label, Text((tokens,), (pooled,))), rtol=1e-5, atol=1e-5)


def test_what_diffusers_cannot_hold_is_refused():
    three = MMDiT(channels=5, size=(8, 8), text=TWO, patch_size=2, depth=2, width=32, heads=4, split_text=True)
    with pytest.raises(ValueError, match="of two streams, image and text, and no split_text=true"):
        to_sd3(three)
    with pytest.raises(ValueError, match="and no Linear"):
        to_sd3(torch.nn.Linear(1, 1))
