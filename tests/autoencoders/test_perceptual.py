from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flowzoo.autoencoders.perceptual import LPIPS, ClipFeatures
from flowzoo.data.shapes import Shapes

# (in, out) of vgg16's convolutions, by their place among its features
CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
CONVOLUTIONS |= {17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}


@pytest.fixture(scope="module")
def vgg() -> dict[str, Tensor]:
    """Random weights under torchvision's names, those of its classifier left small."""
    gen, state = torch.Generator().manual_seed(0), {"classifier.0.weight": torch.zeros(1)}
    for place, (before, after) in CONVOLUTIONS.items():
        state[f"features.{place}.weight"] = torch.randn(after, before, 3, 3, generator=gen) / (3 * before**0.5)
        state[f"features.{place}.bias"] = torch.zeros(after)
    return state


def pairs() -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(Shapes("val", image_size=32, size=4).images(range(4))) / 127.5 - 1
    return images[:2], images[2:]


def test_lpips_is_that_of_its_features_and_weights(vgg: dict[str, Tensor], tmp_path: Path) -> None:
    """By the paper's eq. 1, written out: unit features, weighted squared differences, mean over places, summed."""
    save_file(vgg, tmp_path / "vgg16.safetensors")
    network, (x, y) = LPIPS(tmp_path / "vgg16.safetensors").train(), pairs()
    found = network(x, y)
    assert not network(x, x).any()
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = ((z - shift.view(3, 1, 1)) / scale.view(3, 1, 1) for z in (x, y))
    weights, known = network.net.lins, torch.zeros(2)
    after = {2: 0, 7: 1, 14: 2, 21: 3, 28: 4}
    for place in CONVOLUTIONS:
        if place in (5, 10, 17, 24):
            a, b = (nn.functional.max_pool2d(z, 2) for z in (a, b))
        w, bias = vgg[f"features.{place}.weight"], vgg[f"features.{place}.bias"]
        a, b = (nn.functional.conv2d(z, w, bias, padding=1).relu() for z in (a, b))
        if place in after:
            unit = [z / (z.square().sum(1, keepdim=True) + 1e-8).sqrt() for z in (a, b)]
            known += weights[after[place]].model[-1]((unit[0] - unit[1]).square()).mean((1, 2, 3))
    torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-6)


def test_other_files_are_refused_in_one_line(vgg: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no VGG weights at"):
        LPIPS(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="it does not hold weights; allowed is a file of torchvision's vgg16"):
        LPIPS(tmp_path / "text.pth")
    torch.save({key: x for key, x in vgg.items() if key != "features.0.bias"}, tmp_path / "less.pth")
    with pytest.raises(ValueError, match="they are not those of torchvision's vgg16"):
        LPIPS(tmp_path / "less.pth")


def test_clip_features_tell_images_apart_and_have_a_gradient() -> None:
    features, (x, y) = ClipFeatures(), pairs()
    assert not features(x, x).any()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    near, far = (features(x + scale * noise, x) for scale in (0.02, 0.2))
    assert (near < far).all()
    assert (far < features(x, y)).all() or (near < features(x, y)).all()
    moved = (x + 0.1 * noise).requires_grad_()
    features(moved, x).sum().backward()
    assert moved.grad is not None
    assert moved.grad.isfinite().all()
    assert moved.grad.any()
    assert features(x[:, :1, :20, :24], y[:, :1, :20, :24]).shape == (2,)
    assert not any(p.requires_grad for p in features.parameters())
