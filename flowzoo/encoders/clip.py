"""Our small CLIP as a file: the frozen network behind the text encoder, FID and the CLIP score alike."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from flowzoo.network_file import CLIP, load_network, save_network

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer


def build_clip(architecture: Mapping[str, Any]) -> nn.Module:
    """open_clip's CLIP from `{"embed_dim", "vision_cfg", "text_cfg", ...}`, randomly initialised."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    vision, text = CLIPVisionCfg(**architecture["vision_cfg"]), CLIPTextCfg(**architecture["text_cfg"])
    return CLIP(architecture["embed_dim"], vision, text)


@cache
def tokenizer(context_length: int) -> "SimpleTokenizer":
    """open_clip's byte-pair tokenizer, 49,408 tokens.

    Its table is part of the open_clip package, so no network is needed. A longer caption is cut
    and keeps its end token, whose hidden state is the embedding.
    """
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context_length)


def save_clip(model: nn.Module, path: Path, *, architecture: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """As `save_network`."""
    save_network(model, path, CLIP, architecture=architecture, about=about)


def load_clip(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """As `load_network`. Raises FileNotFoundError and ValueError."""
    return load_network(path, CLIP, build_clip)
