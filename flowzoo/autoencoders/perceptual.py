"""How unlike two images look, by the features of a frozen network."""

import pickle
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.content import SHIPPED
from flowzoo.encoders.clip import load_clip
from flowzoo.paths import user_path

_VGG_SLICES = {**dict.fromkeys(range(0, 4), 1), **dict.fromkeys(range(4, 9), 2), **dict.fromkeys(range(9, 16), 3)}
_VGG_SLICES |= {**dict.fromkeys(range(16, 23), 4), **dict.fromkeys(range(23, 30), 5)}


class ClipFeatures(nn.Module):
    """Distance of the small CLIP's patch features at several depths, each of unit length: mean over patches and depths.

    weights: a file of flowzoo.train_clip; None: the shipped one, trained on shapes.

    FID of flowzoo is measured by the same network: reconstructions that are trained on it have a flattering rFID.
    Raises FileNotFoundError and ValueError, as `load_clip`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        model, about = load_clip(SHIPPED if weights is None else weights)
        architecture = about["architecture"]
        self.visual: Any = model.visual
        self.size = architecture["vision_cfg"]["image_size"]
        layers = architecture["vision_cfg"]["layers"]
        self.depths = sorted({layers // 4, layers // 2, layers - 1})
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(architecture[name]).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Float [n, 1 or 3, H, W] in -1..1, twice -> [n]; differentiable in x."""
        parts = [
            (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))
            for a, b in zip(self._features(x), self._features(y), strict=True)
        ]
        return torch.stack(parts).mean(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        x = (x.expand(-1, 3, -1, -1) + 1) / 2
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        x = (x - self.mean) / self.std
        found = self.visual.forward_intermediates(x, indices=self.depths, intermediates_only=True)
        return found["image_intermediates"]


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity, VGG version 0.1 (Zhang et al. 2018), by torchmetrics.

    weights: a file of torchvision's vgg16 with its weights of ImageNet (vgg16-397923af.pth, or as safetensors);
    the small weights on top of its features come with torchmetrics.

    Raises FileNotFoundError where there is no such file, ValueError where it holds other weights.
    """

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        from torchmetrics.functional.image.lpips import _LPIPS  # the class that its metric is made of

        state = {}
        for key, x in _vgg(weights).items():
            part, _, name = key.partition(".")
            place = name.partition(".")[0]
            if part == "features" and place.isdecimal() and int(place) in _VGG_SLICES:
                state[f"slice{_VGG_SLICES[int(place)]}.{name}"] = x
        self.net = _LPIPS(pretrained=True, net="vgg", pnet_rand=True)
        try:
            self.net.net.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"weights={weights}: they are not those of torchvision's vgg16: {error}") from error
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "LPIPS":
        """It is always in evaluation mode, without dropout."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Float [n, 1 or 3, H, W] in -1..1, twice, of 16 or more pixels -> [n]; differentiable in x."""
        return self.net(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)).flatten()


def _vgg(weights: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = user_path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no VGG weights at {path}: give a file of torchvision's vgg16 that is on this machine")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"weights={weights}: it does not hold weights; allowed is a file of torchvision's vgg16"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(
            f"weights={weights}: it does not hold weights by name; allowed is a file of torchvision's vgg16"
        )
    return {str(key): x for key, x in state.items() if isinstance(x, Tensor)}
