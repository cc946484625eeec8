"""Images and captions to the embeddings behind FID and the CLIP score: our own small CLIP, or any of open_clip's."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.content import SHIPPED, sha256_of
from flowzoo.encoders.clip import load_clip, tokenizer
from flowzoo.paths import user_path

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 [n, 1 or 3, H, W] to float32 [n, 3, size, size] in 0..255: antialiased bicubic, clamped, not rounded."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be uint8 [n, 1 or 3, H, W], got {images.dtype} {list(images.shape)}")
    x = images.float().expand(-1, 3, -1, -1)
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
    return x


class FeatureExtractor(Protocol):
    """A frozen network as a pair of feature functions: what metrics see of images and captions."""

    dim: int  # D, of both
    identity: dict[str, Any]  # its `name`, and everything else that could change a feature
    quality: dict[str, Any]  # what it is known to achieve: `what`, `value`, `data`; may be empty

    def to(self, device: torch.device | str) -> Any:
        """Move in place and return itself, as a module does."""

    def images(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] of any size, on any device -> float32 [n, D], on its own."""

    def text(self, captions: Sequence[str]) -> Tensor:
        """float32 [n, D], comparable with those of images by cosines; zeros where the network knows no text."""


class ClipExtractor:
    """An open_clip model as a pair of feature functions; everything that could change a score is in `identity`."""

    quality: dict[str, Any]  # what the model is known to achieve, printed beside its scores; may be empty

    def __init__(
        self,
        model: nn.Module,
        tokenize: "SimpleTokenizer",
        *,
        name: str,
        weights_sha256: str,
        size: int,
        dim: int,
        mean: Sequence[float],
        std: Sequence[float],
        quality: dict[str, Any],
        batch_size: int = 512,
    ) -> None:
        self.model, self.tokenize, self.size, self.dim, self.batch_size = model, tokenize, size, dim, batch_size
        self.mean, self.std = (255 * torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
        self.quality = quality
        self.identity: dict[str, Any] = {
            "name": name,
            "weights_sha256": weights_sha256,
            "resize": f"bicubic, antialiased, {size} px",
            "dtype": "float32",
            "dim": dim,
        }

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def to(self, device: torch.device | str) -> "ClipExtractor":
        """Move in place, as a module does."""
        self.model.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    @torch.inference_mode()
    def images(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] of any size to the projected, unnormalised embedding, float32 [n, dim]."""

        def features(chunk: Tensor) -> Tensor:
            x = (resize(chunk.to(self.device), self.size) - self.mean) / self.std
            return self.model.encode_image(x)  # type: ignore[operator]

        return self._batched(features, images)

    @torch.inference_mode()
    def text(self, captions: Sequence[str]) -> Tensor:
        """Captions to the projected, unnormalised embedding, float32 [n, dim]."""

        def features(tokens: Tensor) -> Tensor:
            return self.model.encode_text(tokens.to(self.device))  # type: ignore[operator]

        return self._batched(features, self.tokenize(list(captions)))

    def _batched(self, features: Any, inputs: Tensor) -> Tensor:
        if not len(inputs):
            return torch.empty(0, self.dim, device=self.device)
        with torch.autocast(self.device.type, enabled=False):  # a training loop's bf16 must not leak into scores
            return torch.cat([features(chunk).float() for chunk in inputs.split(self.batch_size)])


class Extractor(ClipExtractor):
    """flowzoo's own small CLIP from a file of `flowzoo.train_clip`; by default the shipped one, of shapes."""

    def __init__(self, weights: str | Path | None = None, batch_size: int = 512) -> None:
        weights = SHIPPED if weights is None else weights
        model, about = load_clip(weights)
        architecture = about["architecture"]
        super().__init__(
            model,
            tokenizer(architecture["text_cfg"]["context_length"]),
            name=about["name"],
            weights_sha256=sha256_of(weights),
            size=architecture["vision_cfg"]["image_size"],
            dim=architecture["embed_dim"],
            mean=architecture["mean"],
            std=architecture["std"],
            quality=about["quality"],
            batch_size=batch_size,
        )


class OpenClipExtractor(ClipExtractor):
    """Any CLIP of open_clip from a local weights file, such as the paper's CLIP L/14 (sec. 5.1).

    OpenAI's weights were trained with QuickGELU, and open_clip loads them into the plain ViT-L-14 without a word: name
    ViT-L-14-quickgelu for them. `quick_gelu` says which activation the weights were trained with and is checked here.

    Raises:
        FileNotFoundError: no such file; nothing is ever downloaded.
        ValueError: open_clip has no such model, its activation is not the stated one, or the weights do not fit.
    """

    def __init__(self, model_name: str, weights: str | Path, quick_gelu: bool, batch_size: int = 64) -> None:
        import open_clip

        weights = user_path(weights)
        if not weights.is_file():
            raise FileNotFoundError(f"no weights for {model_name} at {weights}: give a file that is on this machine")
        config = open_clip.get_model_config(model_name)
        if config is None:
            raise ValueError(f"open_clip has no model {model_name!r}; see open_clip.list_models()")
        if bool(config.get("quick_gelu")) != quick_gelu:
            raise ValueError(
                f"{model_name} has quick_gelu={bool(config.get('quick_gelu'))}, the weights want {quick_gelu}: "
                "OpenAI's weights need the model whose name ends in -quickgelu, others the plain one"
            )
        try:
            model = open_clip.create_model(model_name, pretrained=str(weights), weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{weights} does not hold the weights of {model_name}: {error}") from error
        preprocess = open_clip.get_model_preprocess_cfg(model)
        super().__init__(
            model.requires_grad_(False).eval(),
            open_clip.get_tokenizer(model_name),
            name=model_name,
            weights_sha256=sha256_of(weights),
            size=config["vision_cfg"]["image_size"],
            dim=config["embed_dim"],
            mean=preprocess["mean"],
            std=preprocess["std"],
            quality={},
            batch_size=batch_size,
        )
