"""CLIP score: how well an image fits its caption, on the paper's scale of 0.2 to 0.26."""

import torch.nn.functional as F
from torch import Tensor


def clip_score(image: Tensor, text: Tensor) -> Tensor:
    """Raw cosine of each pair of embeddings, [n, D] and [n, D] to [n], float64: no factor 100, not clamped at 0.

    Hessel et al. 2021, eq. 1 without w and max; the paper reports its mean (sec. 5.1).
    """
    if image.shape != text.shape:
        raise ValueError(f"images and captions come in pairs, got {list(image.shape)} and {list(text.shape)}")
    return F.cosine_similarity(image.double(), text.double(), dim=-1)
