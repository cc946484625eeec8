import pytest
import torch
import torch.nn.functional as F

from flowzoo.backbones import parts
from flowzoo.backbones.positions import sinusoid
from flowzoo.encoders.text import TextSpec


def test_patchify_cuts_and_unpatchify_joins():
    z = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    x = parts.patchify(z, 4)
    assert x.shape == (2, 6, 48)
    # patch 4 is row 1, column 1
    torch.testing.assert_close(x[1, 4].reshape(4, 4, 3), z[1, :, 4:8, 4:8].permute(1, 2, 0))
    torch.testing.assert_close(parts.unpatchify(x, 4, 2, 3), z)


def test_qkv_normalises_query_and_key_and_leaves_the_value():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    qkv = parts.QKV(12, 3, qk_norm=True).double()
    q, k, v = qkv(x)
    plain = F.linear(x, qkv.linear.weight, qkv.linear.bias).reshape(2, 5, 3, 3, 4)  # token, role, head, d
    for i, normed in enumerate((q, k)):
        raw = plain[:, :, i].transpose(1, 2)
        torch.testing.assert_close(normed, raw / (raw.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    torch.testing.assert_close(v, plain[:, :, 2].transpose(1, 2))
    scores = (q @ k.mT / 2).softmax(-1) @ v
    torch.testing.assert_close(parts.attend(q, k, v), torch.cat(scores.unbind(1), dim=-1))


def test_streams_of_equal_weights_are_one_sequence(randomise):
    joint, single = parts.JointBlock(2, 16, 2, True).double(), parts.JointBlock(1, 16, 2, True).double()
    randomise(single)
    for stream in joint.streams:
        stream.load_state_dict(single.streams[0].state_dict())
    x, y, c = (torch.randn(*shape, dtype=torch.float64) for shape in [(2, 5, 16), (2, 3, 16), (2, 16)])
    (together,) = single([parts.Tokens(torch.cat([x, y], dim=1))], c)
    apart = [tokens.value() for tokens in joint([parts.Tokens(x), parts.Tokens(y)], c)]
    torch.testing.assert_close(torch.cat(apart, dim=1), together.value())


def test_blocks_start_as_identities():
    x, c = torch.randn(2, 5, 16), torch.randn(2, 16)
    torch.testing.assert_close(parts.JointBlock(1, 16, 2, True)([parts.Tokens(x)], c)[0].value(), x, rtol=0, atol=0)


def test_sinusoid_is_exact_under_autocast_and_spreads_the_whole_scale():
    label = torch.tensor([100.0, 100.25, 900.0, 1000.0])
    with torch.autocast("cpu", torch.bfloat16):
        e = torch.cat(sinusoid(label, 128), dim=-1)
    k = torch.arange(128, dtype=torch.float64)
    angles = label.double()[:, None] * 10_000 ** (-k / 128)
    torch.testing.assert_close(e.double(), torch.cat([angles.sin(), angles.cos()], -1), rtol=0, atol=2e-4)
    assert (e[0] - e[2]).norm() > 0.5 * e[0].norm()  # with labels in 0..1 this would be 13 times less
    assert (e[0] - e[1]).norm() > 0.01 * e[0].norm()


def test_conditioning_joins_pooled_vectors_of_all_encoders(randomise):
    condition = randomise(parts.Conditioning(TextSpec((1, 1), (1, 1), (3, 2)), 8))
    label, a, b = torch.tensor([500.0]), torch.randn(1, 3), torch.randn(1, 2)
    out = condition(label, (a, b))
    assert out.shape == (1, 8)
    assert not torch.equal(out, condition(label, (0 * a, b)))
    assert not torch.equal(out, condition(label, (a, 0 * b)))


def test_wrong_number_of_encoders_is_refused():
    embed = parts.TextEmbedding(TextSpec((1, 1), (3, 2), (0, 0)), 8)
    with pytest.raises(ValueError, match="shorter"):
        embed([torch.randn(1, 1, 3)])
