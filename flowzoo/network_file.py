"""A frozen network as one safetensors file that says what it is. Without torch, until one is written or read."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowzoo.paths import user_path
from flowzoo.runs.files import share

if TYPE_CHECKING:
    from torch import nn

_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch.save begins


class Kind(NamedTuple):
    """Whose files: the format that stands in them, and the command that writes them."""

    format: str
    maker: str


CLIP = Kind("flowzoo-clip-1", "python -m flowzoo.train_clip")
KL = Kind("flowzoo-kl-1", "python -m flowzoo.train_autoencoder")
DETECTOR = Kind("flowzoo-detector-1", "python -m flowzoo.detector.train")


def is_hub_name(weights: str) -> bool:
    """Whether it has the form of a name on Hugging Face's hub, OWNER/NAME. A path may have it too."""
    return weights.count("/") == 1 and not weights.startswith(("/", ".", "~"))


def save_network(
    model: "nn.Module", path: Path, kind: Kind, *, architecture: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write `model` in half precision, its architecture and `about` (name, quality, data, command) in the header.

    The file is whole, or what it was before.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": kind.format, "architecture": json.dumps(architecture)}
    metadata |= {key: json.dumps(value) for key, value in about.items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file({k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}, part, metadata)
        share(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_network(
    path: str | Path, kind: Kind, build: "Callable[[Mapping[str, Any]], nn.Module]"
) -> "tuple[nn.Module, dict[str, Any]]":
    """The model that `build` makes of its architecture (float32, frozen, eval), and what its file says; strict.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not of this kind, or its tensors are not those of its architecture.
    """
    from safetensors import SafetensorError, safe_open

    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: train them with `{kind.maker}`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("format") != kind.format:
        raise ValueError(f"{path} was not written by {kind.maker}: format {metadata.get('format')!r}")
    about = {key: json.loads(value) for key, value in metadata.items() if key != "format"}
    model = build(about["architecture"])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the architecture that it names: {error}") from error
    return model.requires_grad_(False).eval(), about


def check_weights(path: Path, kind: Kind | None) -> None:
    """Raises ValueError for a file that is not one of this `kind`; None takes safetensors and files of torch.save.

    It looks at the first bytes and the length alone: whether the file is whole.
    """
    if not path.is_file():
        raise ValueError("it is a folder; allowed is a file")
    with open(path, "rb") as file:
        start = file.read(8)
        if kind is None and (start.startswith(_ZIP) or (start + file.read(8)).startswith(_LEGACY)):
            return
        file.seek(8)
        size, length = path.stat().st_size, int.from_bytes(start, "little")
        try:
            if len(start) < 8 or length > size - 8:
                raise ValueError
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            allowed = f"a file of {kind.maker}" if kind else "safetensors, or a file of torch.save"
            raise ValueError(f"it does not hold weights; allowed is {allowed}") from None
    if size != 8 + length + end:
        raise ValueError(f"it has {size} bytes where its header says {8 + length + end}: it is cut short or damaged")
    if kind and header.get("__metadata__", {}).get("format") != kind.format:
        raise ValueError(f"it is of another program; allowed is a file of {kind.maker}")
