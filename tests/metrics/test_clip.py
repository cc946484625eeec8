from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.multimodal.clip_score import CLIPScore

from flowzoo.metrics.clip import clip_score


def pairs(n: int = 50) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(0)
    image = torch.randn(n, 16, generator=gen)
    return image, image + 2 * torch.randn(n, 16, generator=gen)


def test_cosine_without_factor_or_clamp() -> None:
    image, _ = pairs()
    torch.testing.assert_close(clip_score(image, 3 * image), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(clip_score(image, -image), -torch.ones(50, dtype=torch.float64))
    with pytest.raises(ValueError, match="pairs"):
        clip_score(image, image[:3])


class Given(nn.Module):
    """A CLIP for torchmetrics with given features: images are their own, captions name rows of the text features."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.given, self.config = text, SimpleNamespace()

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1)

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.given[ids]

    def process(self, images: Any = None, text: Any = None, **kwargs: Any) -> dict[str, Tensor]:
        if images is not None:
            return {"pixel_values": torch.stack(images)}
        ids = torch.tensor([int(t) for t in text])
        return {"input_ids": ids, "attention_mask": ids}


def test_mean_is_torchmetrics_over_100() -> None:
    image, text = pairs()
    model = Given(text)
    metric = CLIPScore(model_name_or_path=lambda: (model, model.process))
    metric.update(list(image.view(50, 1, 1, 16)), [str(i) for i in range(50)])
    assert float(clip_score(image, text).mean()) == pytest.approx(float(metric.compute()) / 100, rel=1e-6)
