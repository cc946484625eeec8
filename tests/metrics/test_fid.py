import math
from pathlib import Path
from typing import Any

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pca import BlockPCA
from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.fid import FID, FewSamples, frechet_distance, reference_moments
from flowzoo.metrics.metric import HeldOut, Made
from flowzoo.metrics.moments import Moments


def features(n: int, dim: int = 8, seed: int = 0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=gen, dtype=torch.float64)
    return torch.randn(n, dim, generator=gen, dtype=torch.float64) @ mix + torch.randn(dim, generator=gen)


def distance(x: Tensor, y: Tensor) -> float:
    return frechet_distance(Moments(x.shape[1]).update(x), Moments(y.shape[1]).update(y))


def test_identity_is_zero_and_a_shift_is_its_square() -> None:
    x = features(500)
    assert distance(x, x) == pytest.approx(0, abs=1e-9)
    shift = torch.linspace(-1, 2, 8, dtype=torch.float64)
    assert distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)
    assert distance(x, 3 * (x - x.mean(0)) + x.mean(0)) == pytest.approx(4 * float(x.T.cov().trace()), rel=1e-9)


def test_symmetric_and_invariant_under_rotation() -> None:
    x, y = features(300), features(400, seed=1)
    rotation = torch.linalg.qr(features(8, seed=2)).Q
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-10)
    assert distance(x @ rotation, y @ rotation) == pytest.approx(distance(x, y), rel=1e-9)


def test_equal_to_the_matrix_square_root() -> None:
    x, y = features(300), features(400, seed=1)
    root = scipy.linalg.sqrtm(x.T.cov().numpy() @ y.T.cov().numpy()).real
    expected = (x.mean(0) - y.mean(0)).square().sum() + x.T.cov().trace() + y.T.cov().trace() - 2 * root.trace()
    assert distance(x, y) == pytest.approx(float(expected), rel=1e-9)


def test_a_constant_feature_adds_its_squared_difference_alone() -> None:
    """Its covariance is of lower rank and has no Cholesky factor."""
    x, y = features(300), features(400, seed=1)
    level = lambda z, c: torch.cat([z, torch.full((len(z), 1), c, dtype=torch.float64)], 1)  # noqa: E731
    assert distance(level(x, 0.0), level(y, 3.0)) == pytest.approx(distance(x, y) + 9, rel=1e-9)


def test_few_samples_are_refused_or_warned_of() -> None:
    many = features(500)
    with pytest.raises(ValueError, match=r"FID is not given: 8 images in 8 dimensions"):
        distance(many, features(8))
    with pytest.warns(FewSamples, match="79 images are few"):
        distance(features(79), many)
    with pytest.raises(ValueError, match="dimensions is not defined"):
        frechet_distance(Moments(3), Moments(4))


def test_not_finite_features_have_no_finite_distance() -> None:
    x = features(500)
    y = x.clone()
    y[3, 2] = math.nan
    assert math.isnan(distance(x, y))


@pytest.mark.parametrize("far", [3e4, 1e6, 1e8])
def test_features_far_from_zero_are_as_far_apart_as_centred_ones(far: float) -> None:
    x, y = features(500) + far, features(400, seed=1) + far
    assert distance(x, y) == pytest.approx(distance(x - far, y - far), rel=1e-8)
    assert distance(x, x) == pytest.approx(0, abs=1e-9)


class Peer(nn.Module):
    """Our extractor as the feature network of torchmetrics."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor, self.num_features = extractor, extractor.dim

    def forward(self, images: Tensor) -> Tensor:
        return self.extractor.images(images).double()


def pictures(seed: int, dark: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return (torch.rand(200, 3, 1, 1, generator=gen) * torch.rand(200, 3, 32, 32, generator=gen) * dark).byte()


def test_equal_to_torch_fidelity_and_torchmetrics(extractor: Extractor, request: pytest.FixtureRequest) -> None:
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Registered(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("embedding",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "embedding"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (extractor.images(images).double(),)

    one, other = pictures(0, 255), pictures(1, 200)
    ours = frechet_distance(*(Moments(extractor.dim).update(extractor.images(x)) for x in (one, other)))
    torch_fidelity.register_feature_extractor("flowzoo", Registered)
    request.addfinalizer(lambda: FEATURE_EXTRACTORS_REGISTRY.pop("flowzoo"))
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(one),
        input2=Pictures(other),
        fid=True,
        feature_extractor="flowzoo",
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=50,
        save_cpu_ram=True,
    )
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    metric = FrechetInceptionDistance(feature=Peer(extractor))
    metric.update(one, real=True)
    metric.update(other, real=False)
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)


class Pictures(torch.utils.data.Dataset):
    def __init__(self, images: Tensor) -> None:
        self.pictures = images

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index]


def test_reference_is_read_once_and_its_key_holds_everything(
    tmp_path: Path, extractor: Extractor, numbers: Any
) -> None:
    first = reference_moments(extractor, numbers, 150, extractor.identity, tmp_path)
    assert numbers.read == 150
    again = reference_moments(extractor, numbers, 150, extractor.identity, tmp_path)
    assert numbers.read == 150
    assert torch.equal(first.outer, again.outer)
    reference_moments(extractor, numbers, 100, extractor.identity, tmp_path)
    numbers.fingerprint = "changed"
    reference_moments(extractor, numbers, 100, extractor.identity, tmp_path)
    assert numbers.read == 350
    other = Extractor.__new__(Extractor)
    other.__dict__ = extractor.__dict__ | {"identity": extractor.identity | {"weights_sha256": "other"}}
    reference_moments(other, numbers, 100, other.identity, tmp_path)
    assert numbers.read == 450
    assert not list(tmp_path.glob("*.part"))
    pca = BlockPCA(3, factor=4, channels=4)
    pca.fit([torch.from_numpy(numbers.images(range(50)))])
    seen = [
        reference_moments(other, numbers, 100, other.identity, tmp_path, Latents(pca, [0.0] * 4, [std] * 4))
        for std in (1.0, 1.0, 2.0)
    ]
    assert numbers.read == 700  # 50 for the fit, 100 of each kind of latents
    assert torch.equal(seen[0].outer, seen[1].outer)
    with pytest.raises(ValueError, match="1 to 200"):
        reference_moments(extractor, numbers, 201, extractor.identity, tmp_path)


@pytest.mark.filterwarnings("ignore:.*few for FID")
def test_what_the_autoencoder_loses_is_told_apart(extractor: Extractor, numbers: Any) -> None:
    """Held-out images, encoded and decoded, are perfect samples: only the autoencoder is between them and the real."""
    images = torch.from_numpy(numbers.images(range(len(numbers))))
    pca = BlockPCA(3, factor=4, channels=4)
    pca.fit([images])
    latents = Latents(pca, [0.0] * 4, [1.0] * 4)
    decoded = latents.decode(latents.encode(images))

    def scores(samples: Tensor, given: Latents | None) -> dict[str, float | None]:
        fid = FID()
        fid.begin(HeldOut(numbers, len(numbers), extractor, extractor.identity, len(samples), None, given))
        statistics = fid.statistics()
        features = extractor.images(samples)[None]
        statistics.update(Made(samples[None], features, [""] * len(samples), features[0]))
        (found,) = statistics.values()
        return found

    lost = scores(decoded, latents)
    assert lost["fid_decoded"] == pytest.approx(0, abs=1e-6)
    assert lost["fid"] is not None
    assert lost["fid"] > 1e-3
    real = scores(images, latents)
    assert real["fid"] == pytest.approx(0, abs=1e-6)
    assert real["fid_decoded"] == pytest.approx(lost["fid"])
    exact = scores(images, None)
    assert exact["fid_decoded"] == exact["fid"]
    assert scores(images[: extractor.dim], latents) == {"fid": None, "fid_decoded": None}
