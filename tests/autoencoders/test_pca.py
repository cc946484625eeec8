import pytest
import torch
from torch import Tensor

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pca import BlockPCA
from flowzoo.autoencoders.statistics import statistics_of
from flowzoo.data.shapes import Shapes


@pytest.fixture(scope="module")
def images() -> Tensor:
    """uint8 [100, 3, 32, 32]"""
    return torch.from_numpy(Shapes("train", image_size=32, size=100).images(range(100)))


def blocks(images: Tensor, f: int) -> Tensor:
    """float64 [n, C f^2], by the words of the definition."""
    n, channels, height, width = images.shape
    cut = images.double().reshape(n, channels, height // f, f, width // f, f) / 255
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * f * f)


def latents_of(pca: BlockPCA, images: Tensor, **more: float) -> Latents:
    found = statistics_of(pca, [images])
    return Latents(pca, found.mean, found.std, **more)


def covariance(x: Tensor) -> Tensor:
    return x.double().transpose(0, 1).flatten(1).cov(correction=0)


@pytest.mark.parametrize(("f", "channels"), [(2, 5), (4, 6), (4, 48), (8, 20)])
def test_latents_are_coordinates_along_the_principal_components(images: Tensor, f: int, channels: int) -> None:
    pca = BlockPCA(3, f, channels).fit([images])
    variances = torch.linalg.eigvalsh(blocks(images, f).T.cov(correction=0)).flip(0)
    torch.testing.assert_close(pca.variances, variances, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(pca.basis @ pca.basis.T, torch.eye(channels), atol=1e-5, rtol=0)
    z = pca.encode(images)
    assert z.shape == (100, channels, 32 // f, 32 // f)
    torch.testing.assert_close(covariance(z), variances[:channels].diag(), atol=1e-6, rtol=1e-4)
    assert pca.share == pytest.approx(float(variances[:channels].sum() / variances.sum()))


@pytest.mark.parametrize(("f", "channels"), [(2, 5), (4, 6), (4, 16), (8, 20)])
def test_the_error_of_a_reconstruction_is_the_variance_left_out(images: Tensor, f: int, channels: int) -> None:
    pca = BlockPCA(3, f, channels).fit([images]).double()
    back = torch.einsum("ck,nchw->nkhw", pca.basis, pca.encode(images)) + pca.center[:, None, None]
    error = (torch.nn.functional.pixel_shuffle(back, f) - images.double() / 255).square().mean()
    torch.testing.assert_close(error * 3 * f**2, pca.variances[channels:].sum(), rtol=1e-5, atol=0)
    # in whole levels it is rounded, by 1/12 of a level squared, and clamped to what can be shown
    rounded = (pca.decode(pca.encode(images)).double() / 255 - images.double() / 255).square().mean()
    assert rounded <= error + 1 / 12 / 255**2 * 1.1


@pytest.mark.parametrize("f", [2, 4, 8])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_all_channels_give_the_image_back_bit_for_bit(images: Tensor, f: int, power: float) -> None:
    latents = latents_of(BlockPCA(3, f, 3 * f * f).fit([images]), images, gain=0.5, spectrum_power=power)
    assert torch.equal(latents.decode(latents.encode(images)), images)
    noise = torch.randint(256, (20, 3, 16, 24), generator=torch.Generator().manual_seed(0)).byte()
    assert torch.equal(latents.decode(latents.encode(noise)), noise)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_covariance_is_that_of_the_power_of_the_spectrum(images: Tensor, power: float) -> None:
    """g = 0: the unit matrix; g = 1: that of the components but for one common factor; mean variance 1 always."""
    pca = BlockPCA(3, 4, 6).fit([images])
    found = covariance(latents_of(pca, images, spectrum_power=power).encode(images))
    w = pca.variances[:6] ** power
    torch.testing.assert_close(found, (w / w.mean()).diag(), atol=1e-3, rtol=1e-3)
    assert found.trace().item() / 6 == pytest.approx(1)


def test_fitting_is_deterministic_in_any_chunks_and_signs_are_fixed(images: Tensor) -> None:
    once = BlockPCA(3, 4, 10).fit([images])
    again = BlockPCA(3, 4, 10).fit(images.split(7))
    assert all(torch.equal(again.state_dict()[name], x) for name, x in once.state_dict().items())
    assert once.fingerprint == again.fingerprint
    largest = once.basis.abs().argmax(1, keepdim=True)
    assert (once.basis.gather(1, largest) > 0).all()
    assert BlockPCA(3, 4, 9).fit([images]).fingerprint != once.fingerprint
    assert BlockPCA(3, 4, 10).fit([images[:50]]).fingerprint != once.fingerprint


def test_precision_of_products_is_given_back(images: Tensor) -> None:
    pca = BlockPCA(3, 4, 6).fit([images])
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        pca.decode(pca.encode(images))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_mistakes_are_named(images: Tensor) -> None:
    with pytest.raises(ValueError, match="factor=3: allowed are 2, 4, 8"):
        BlockPCA(3, 3, 4)
    with pytest.raises(ValueError, match="channels=49: allowed are 1 to 48"):
        BlockPCA(3, 4, 49)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    with pytest.raises(ValueError, match="channels=17: allowed are 1 to 16, as the images vary in no more"):
        BlockPCA(3, 4, 17).fit([grey])
    BlockPCA(3, 4, 16).fit([grey])
    with pytest.raises(RuntimeError, match="not fitted"):
        BlockPCA(3, 4, 6).encode(images)
