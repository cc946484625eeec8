import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from flowzoo.autoencoders.kl import KLAutoencoder, load_kl, save_kl
from flowzoo.autoencoders.kl_network import KLNetwork, to_float, to_uint8
from flowzoo.autoencoders.latents import Latents
from flowzoo.content import SHIPPED_KL
from flowzoo.data.shapes import Shapes
from flowzoo.metrics.reconstruction import reconstruct

WIDTHS = {2: (8, 16), 4: (8, 16, 16), 8: (8, 8, 16, 16)}


def network(factor: int = 4, channels: int = 4, image_channels: int = 3) -> KLNetwork:
    """Random, also where training begins with zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = KLNetwork(image_channels, factor, channels, WIDTHS[factor], blocks=1)
        for p in made.parameters():
            torch.nn.init.normal_(p, std=0.2)
        return made


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_kl(network(), tmp_path / "kl.safetensors", {"name": "random"})
    return tmp_path / "kl.safetensors"


def images(n: int = 3, height: int = 16, width: int = 24, channels: int = 3) -> Tensor:
    return torch.randint(256, (n, channels, height, width), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("channels", [4, 8, 16])
def test_shapes_of_every_factor_and_number_of_channels(factor: int, channels: int, tmp_path: Path) -> None:
    save_kl(network(factor, channels), tmp_path / "kl", {})
    autoencoder = KLAutoencoder(3, tmp_path / "kl")
    z = autoencoder.encode(images())
    assert z.shape == (3, channels, 16 // factor, 24 // factor)
    back = autoencoder.decode(z)
    assert (back.shape, back.dtype) == ((3, 3, 16, 24), torch.uint8)


def test_latents_are_the_posteriors_mean_and_the_same_each_time(weights: Path) -> None:
    autoencoder = KLAutoencoder(3, weights)
    z = autoencoder.encode(images())
    assert torch.equal(z, autoencoder.network.encode(to_float(images())).mean)
    assert torch.equal(z, KLAutoencoder(3, weights).encode(images()))
    assert not z.requires_grad
    assert not any(p.requires_grad for p in autoencoder.parameters())


def test_each_image_is_encoded_and_decoded_alone(weights: Path) -> None:
    """So pieces of any size are the whole batch."""
    latents = Latents(KLAutoencoder(3, weights), [0.0] * 4, [1.0] * 4)
    z = latents.encode(images())
    back = latents.decode(z)
    latents._pieces.pixels = 1
    torch.testing.assert_close(latents.encode(images()), z, rtol=1e-5, atol=1e-5)
    assert (latents.decode(z).int() - back.int()).abs().max() <= 1  # of 255: a tie may be rounded otherwise


def test_all_uint8_come_back_from_floats() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-1.2, 1.2])).tolist() == [0, 255]


def test_a_drawn_latent_has_the_posteriors_deviation() -> None:
    made, x = network(), to_float(images())
    mean, log_variance = made.encode(x)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    back, *told = made(x, noise)
    assert torch.equal(back, made.decode(mean + (log_variance / 2).exp() * noise))
    assert all(torch.equal(a, b) for a, b in zip(told, (mean, log_variance), strict=True))


def test_many_networks_run_as_one() -> None:
    """As a stack trains them: vmap around the network."""
    first, second = network(), network()
    torch.nn.init.normal_(second.encoder[0].weight, std=0.1, generator=torch.Generator().manual_seed(3))
    weights, _ = stack_module_state([first, second])
    x, noise = to_float(images()), torch.zeros(3, 4, 4, 6)
    both = vmap(lambda one: functional_call(first, one, (x, noise)))(weights)
    for i, one in enumerate((first, second)):
        for a, b in zip(both, one(x, noise), strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-4, atol=1e-4)


def test_residual_blocks_and_attention_begin_as_nothing() -> None:
    made = KLNetwork(3, 2, 4, (8, 16), blocks=2)
    x = torch.randn(1, 16, 4, 4)
    for block in (made.decoder[1], made.decoder[2]):
        assert torch.equal(block(x), x)


def test_weights_are_kept_in_half_precision_with_their_architecture(weights: Path) -> None:
    loaded, about = load_kl(weights)
    assert about["name"] == "random"
    assert loaded.architecture == network().architecture
    for name, x in network().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], x.half().float())


def test_the_size_that_ships_has_two_million_parameters_and_four_megabytes(tmp_path: Path) -> None:
    made = KLNetwork(3, 4, 8, (32, 64, 128), blocks=1)
    assert 1.5e6 < sum(p.numel() for p in made.parameters()) < 2e6
    save_kl(made, tmp_path / "kl", {})
    assert (tmp_path / "kl").stat().st_size < 4e6


def _changed(source: Path, target: Path, change) -> Path:
    with safe_open(source, framework="pt") as file:
        state, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(change(state), target, metadata)
    return target


def test_loading_is_strict(weights: Path, tmp_path: Path) -> None:
    first = "encoder.0.weight"
    for change in (
        lambda state: {key: x for key, x in state.items() if key != first},
        lambda state: state | {"more": torch.zeros(1)},
        lambda state: state | {first: state[first][1:].contiguous()},
    ):
        with pytest.raises(ValueError, match="does not fit the architecture that it names"):
            KLAutoencoder(3, _changed(weights, tmp_path / "other", change))
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"was not written by python -m flowzoo.train_autoencoder"):
        KLAutoencoder(3, tmp_path / "foreign")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        KLAutoencoder(3, tmp_path / "none")
    with pytest.raises(ValueError, match="images with 3 channels; allowed are those of images with 1"):
        KLAutoencoder(1, weights)


def test_the_fingerprint_is_that_of_the_content(weights: Path, tmp_path: Path) -> None:
    copied = shutil.copy(weights, tmp_path / "copied")
    save_kl(network(), tmp_path / "other", {"name": "other"})
    one, again, other = (KLAutoencoder(3, path).fingerprint for path in (weights, copied, tmp_path / "other"))
    assert one == again != other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 3}, "factor=3: allowed are 2, 4, 8"),
        ({"widths": (8, 16)}, r"widths=\[8, 16\]: allowed are 3 numbers for factor=4"),
        ({"widths": (8, 12, 16)}, "allowed are multiples of 8"),
        ({"channels": 0}, "channels=0: allowed is an integer of at least 1"),
        ({"blocks": 0}, "blocks=0: allowed is an integer of at least 1"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    arguments = {"image_channels": 3, "factor": 4, "channels": 4, "widths": (8, 16, 16), "blocks": 1} | change
    with pytest.raises(ValueError, match=message):
        KLNetwork(**arguments)


def test_the_shipped_file_is_small_and_gives_shapes_back_at_both_sizes() -> None:
    assert SHIPPED_KL.stat().st_size <= 4_000_000
    shipped = KLAutoencoder(3)
    assert (shipped.factor, shipped.channels) == (4, 8)
    for edge, least in ((32, 39), (64, 34)):
        found = reconstruct(shipped, Shapes(split="val", image_size=edge, size=64), 64, torch.device("cpu"), keep=1)
        assert found.psnr > least
