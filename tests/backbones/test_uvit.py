import pytest
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException

from flowzoo.backbones.uvit import double, halve


def test_double_is_nearest_neighbour_and_halve_undoes_it():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(double(x), F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(halve(double(x)), x)


@pytest.mark.parametrize(("patch_size", "channels"), [(2, [16]), (4, [8, 16]), (8, [4, 8, 16])])
def test_one_level_a_halving(make, inputs, randomise, patch_size, channels):
    net = randomise(make("uvit", patch_size=patch_size, depth=1))
    assert [level.from_below.out_channels for level in net.levels] == channels
    assert net(*inputs()).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("overrides", [{"patch_size": 1}, {"patch_size": 6}, {"level_blocks": 0}])
def test_levels_that_do_not_exist_are_refused(make, overrides):
    ((key, value),) = overrides.items()
    with pytest.raises(InstantiationException, match=f"{key}={value}"):
        make("uvit", size=(24, 24), **overrides)


def test_every_skip_is_used(make, inputs, randomise):
    """A change that the transformer cannot see, a checkerboard's mean being 0, reaches the output through the skips."""
    net = randomise(make("uvit").double())
    z, label, text = inputs(dtype=torch.float64)
    seen = []
    for level in net.levels:
        for block in level.down:
            block.register_forward_hook(lambda _, __, out: seen.append(out.retain_grad() or out))
    z.requires_grad_()
    net(z, label, text).square().sum().backward()
    assert len(seen) == 4
    assert all(out.grad.abs().sum() > 0 for out in seen)
