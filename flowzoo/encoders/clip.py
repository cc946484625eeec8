"""Our small CLIP as a file: the frozen network behind the text encoder, FID and the CLIP score alike."""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from flowzoo.encoders.weights_file import FORMAT
from flowzoo.paths import user_path

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
    """Write `model` in half precision, its architecture and `about` (name, quality, data, command) in the header.

    The file is whole, or what it was before.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "architecture": json.dumps(architecture)}
    metadata |= {key: json.dumps(value) for key, value in about.items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}, part, metadata)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_clip(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model (float32, frozen, eval) and what its file says about itself; strict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not written by `save_clip`, or its tensors are not those of its architecture.
    """
    from safetensors import SafetensorError, safe_open

    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no CLIP weights at {path}: train them with `python -m flowzoo.metrics.train_clip` (docs/extractor.md)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by flowzoo.metrics.train_clip: format {metadata.get('format')!r}")
    about = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
    model = build_clip(about["architecture"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the architecture that it names: {error}") from error
    return model.requires_grad_(False).eval(), about
