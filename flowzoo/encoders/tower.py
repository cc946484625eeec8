"""The text tower of flowzoo's own small CLIP as a frozen encoder."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from flowzoo.content import SHIPPED, sha256_of
from flowzoo.encoders.clip import load_clip, tokenizer

_CHUNK = 512  # captions at once


class ClipTower:
    """Tokens are the final hidden states after the last norm, pooled is the projected state of the end token.

    The paper (B.2) takes the penultimate layer of far deeper towers; in four layers the last one is needed. Positions
    after the end token are zeros. A caption longer than the tower's context is cut and keeps its end token.

    Args:
        weights: a file of `flowzoo.train_clip`; None: the shipped one, trained on shapes.
        length: L, the positions kept; the tower is causal, so the first ones do not depend on it.

    Raises:
        FileNotFoundError, ValueError: as `load_clip`; ValueError: length beyond the tower's context.
    """

    def __init__(self, weights: str | Path | None = None, length: int = 32) -> None:
        weights = SHIPPED if weights is None else weights
        self.model, about = load_clip(weights)
        del self.model.visual
        context = about["architecture"]["text_cfg"]["context_length"]
        if not 1 <= length <= context:
            raise ValueError(f"length={length} is out of range; allowed: 1 to {context}, the context of {weights}")
        self._tokenize = tokenizer(context)
        self.length = length
        self.dim: int = about["architecture"]["text_cfg"]["width"]
        self.pooled_dim: int = about["architecture"]["embed_dim"]
        self.fingerprint = sha256(repr(("clip", sha256_of(weights), length)).encode()).hexdigest()[:16]

    def to(self, device: torch.device | str) -> "ClipTower":
        self.model.to(device)
        return self

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens [n, L, D] and pooled [n, P], float32 on the tower's device."""
        device = self.model.logit_scale.device
        parts = [self._encode(chunk.to(device)) for chunk in self._tokenize(list(captions)).split(_CHUNK)]
        tokens, pooled = zip(*parts, strict=True)
        return torch.cat(tokens), torch.cat(pooled)

    # Not inference_mode: backbones save what they are given for their backward pass.
    @torch.no_grad()
    def _encode(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        with torch.autocast(ids.device.type, enabled=False):  # a training loop's bf16 must not change the text
            x = model.token_embedding(ids) + model.positional_embedding  # type: ignore[operator]  # [n, context, D]
            x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))  # type: ignore[operator]
        end = ids.argmax(1)  # the end token has the highest number
        pooled = x[torch.arange(len(x), device=x.device), end] @ model.text_projection
        inside = torch.arange(self.length, device=x.device) <= end[:, None]
        return x[:, : self.length] * inside[..., None], pooled
