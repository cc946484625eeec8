import pytest
import torch
from torch import Tensor, nn

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels


class Halves(nn.Module):
    """f = 2: the mean of four pixels in one channel, in another a thousand times that, in a third a tenth, minus 3."""

    image_channels, channels, factor, fingerprint = 1, 3, 2, "halves"

    def encode(self, images: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(images.float(), 2)
        return torch.cat([x, 1000 * x, x / 10 - 3], 1)

    def decode(self, latents: Tensor) -> Tensor:
        return nn.functional.interpolate(latents[:, :1], scale_factor=2).round().clamp(0, 255).to(torch.uint8)


def blocks(n: int = 64) -> Tensor:
    """uint8 [n, 1, 8, 6] of constant squares of 2 x 2."""
    levels = torch.randint(256, (n, 1, 4, 3), generator=torch.Generator().manual_seed(0))
    return levels.byte().repeat_interleave(2, -1).repeat_interleave(2, -2)


def latents_of(images: Tensor, **more: float) -> Latents:
    x = Halves().encode(images).double().transpose(0, 1).flatten(1)
    return Latents(Halves(), x.mean(1).tolist(), x.std(1, correction=0).tolist(), **more)


def by_channel(x: Tensor) -> Tensor:
    return x.double().transpose(0, 1).flatten(1)


def test_every_channel_has_zero_mean_and_unit_deviation() -> None:
    x = by_channel(latents_of(blocks()).encode(blocks()))
    torch.testing.assert_close(x.mean(1), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(3).double())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_the_spectrum_comes_back_by_its_power_and_the_mean_variance_is_the_gains(power: float, gain: float) -> None:
    latents = latents_of(blocks(), gain=gain, spectrum_power=power)
    variance = by_channel(latents.encode(blocks())).var(1, correction=0)
    spectrum = by_channel(Halves().encode(blocks())).var(1, correction=0)
    assert variance.mean().item() == pytest.approx(gain**2)
    torch.testing.assert_close(variance / variance[0], (spectrum / spectrum[0]) ** power)
    assert torch.equal(latents.decode(latents.encode(blocks())), blocks())


def test_sizes_are_pairs_and_must_be_divided() -> None:
    latents = latents_of(blocks())
    assert latents.latent_size((8, 6)) == (4, 3)
    assert latents.encode(blocks()).shape == (64, 3, 4, 3)
    with pytest.raises(ValueError, match="images of 8 x 7 pixels: allowed are multiples of 2"):
        latents.latent_size((8, 7))
    with pytest.raises(ValueError, match="7 x 8"):
        latents.encode(torch.zeros(1, 1, 7, 8, dtype=torch.uint8))


def test_a_batch_in_pieces_is_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = latents_of(blocks())
    x = latents.encode(blocks())
    for pixels in (1, 48, 500):  # one image at once, one, ten
        latents._pieces.pixels = pixels
        assert torch.equal(latents.encode(blocks()), x)
        assert torch.equal(latents.decode(x), blocks())


def test_pieces_become_smaller_where_memory_ends() -> None:
    latents, sizes = latents_of(blocks()), []

    def decode(z: Tensor) -> Tensor:
        sizes.append(len(z))
        if len(z) > 20:
            raise torch.OutOfMemoryError
        return Halves().decode(z)

    latents.autoencoder.decode = decode  # type: ignore[method-assign]
    x = latents.encode(blocks())
    assert torch.equal(latents.decode(x), blocks())
    assert sizes == [64, 32, 16, 16, 16, 16]
    latents.decode(x)
    assert sizes[6:] == [16, 16, 16, 16]  # it is not tried again

    def never(z: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    latents.autoencoder.decode = never  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError):
        latents.decode(x)


def test_the_fingerprint_covers_all_that_decides_latents() -> None:
    made = [
        Latents(Pixels(1), [0.5], [0.2]),
        Latents(Pixels(1), [0.4], [0.2]),
        Latents(Pixels(1), [0.5], [0.3]),
        Latents(Pixels(1), [0.5], [0.2], gain=0.5),
        Latents(Pixels(1), [0.5], [0.2], spectrum_power=1.0),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert Latents(Pixels(1), [0.5], [0.2]).fingerprint == made[0].fingerprint


def test_nothing_of_the_backbones_precision_reaches_the_data() -> None:
    latents = latents_of(blocks())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(latents.encode(blocks()), latents_of(blocks()).encode(blocks()))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mean": [0.0]}, "one number for each of 3 channels"),
        ({"std": [1.0, 0.0, 1.0]}, "above 0"),
        ({"gain": 0.0}, r"gain=0.0: allowed is a number greater than 0"),
    ],
)
def test_mistakes_of_statistics_are_named(more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Latents(Halves(), **({"mean": [0.0] * 3, "std": [1.0] * 3} | more))
