from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from flowzoo.autoencoders.pixels import normalised_pixels

CONF = Path(__file__).parents[2] / "conf"


def test_decode_inverts_encode_for_every_value() -> None:
    pixels = normalised_pixels([0.1, 0.5, 0.9], [0.2, 0.3, 0.05])
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    x = pixels.encode(images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[0, 1], (images[0, 1] / 255 - 0.5) / 0.3)
    assert torch.equal(pixels.decode(x), images)
    assert torch.equal(pixels.decode(x.double()), images)


def test_levels_are_normalised_as_they_always_were() -> None:
    """The arithmetic that golden trajectories and finished runs rest on, bit for bit."""
    mean, std = [0.49405, 0.45434, 0.45088], [0.31208, 0.28489, 0.27109]
    images = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    shift, scale = ((255 * torch.tensor(v, dtype=torch.float64)).float()[:, None, None] for v in (mean, std))
    assert torch.equal(normalised_pixels(mean, std).encode(images), (images.float() - shift) / scale)
    double = normalised_pixels(mean, std).double()
    assert torch.equal(double.encode(images), (images.float() - shift.double()) / scale.double())


def test_decode_clamps_and_rounds() -> None:
    pixels = normalised_pixels([0.0], [1 / 255])
    x = torch.tensor([-9.0, 1.4, 1.6, 300.0]).view(1, 1, 2, 2)
    assert pixels.decode(x).flatten().tolist() == [0, 1, 2, 255]


def test_the_stored_statistics_normalise_shapes() -> None:
    cfg = OmegaConf.create({"captions": "mix", "data": OmegaConf.load(CONF / "data/shapes.yaml")})
    pixels = normalised_pixels(cfg.data.mean, cfg.data.std)
    source = instantiate(cfg.data.source, split="train")
    assert pixels.channels == source.channels
    assert pixels.latent_size((source.size[0], 24)) == (32, 24)
    assert (len(source), source.name) == (50_000, cfg.data.name)
    # The whole split, as 10,000 images leave a sampling error of 0.6 %; counted by value, which is exact and fast.
    counts = torch.zeros(3, 256, dtype=torch.float64)
    for start in range(0, 50_000, 1000):
        images = torch.from_numpy(source.images(range(start, start + 1000)))
        counts += torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(3)])
    x = (
        pixels.encode(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16))
        .flatten(2)[0]
        .double()
    )
    share = counts / counts.sum(1, keepdim=True)
    mean, square = (share * x).sum(1), (share * x * x).sum(1)
    assert mean.abs().max() < 0.01
    assert ((square - mean**2).sqrt() - 1).abs().max() < 0.01


def test_nothing_enters_a_checkpoint() -> None:
    assert not normalised_pixels([0.5], [0.2]).state_dict()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5], [0.2, 0.2], "one number for each of 1 channels"),
        ([0.5], [0.0], "above 0"),
    ],
)
def test_mistakes_are_named(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalised_pixels(mean, std)
