"""Encoding a data set once: shards as units of work, dealt to processes, each whole or not there.

`python -m flowzoo.encode` (flowzoo/encode.py) says what is encoded; the files are those of flowzoo/data/encoded.py. A
shard depends on nothing but its number, so whoever is killed leaves whole shards, and the same command makes the rest.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowzoo.autoencoders import kept
from flowzoo.autoencoders.latents import Latents
from flowzoo.build import autoencoder_for
from flowzoo.data.encoded import (
    CAPTIONS,
    DTYPES,
    FORMAT,
    INDEX,
    PLAN,
    header,
    is_sound,
    packed,
    shard,
    unpacked,
    write_shard,
)
from flowzoo.data.loader import leave_signals_to_the_parent
from flowzoo.data.source import Source
from flowzoo.encoders.text import TextEncoders
from flowzoo.fleet import Fleet, Worker, gpus, say
from flowzoo.runs.files import Refused, RunError, explained, replace
from flowzoo.sockets import keep_socket_paths_short
from flowzoo.sources import opened
from flowzoo.training.loop import Loop

_TEXT_SHARD = 2**28  # bytes of a shard of text, and 4,096 captions, at most
_TEXT_BATCH = 512  # captions encoded at once, as they are in training
KINDS = ("val", "train")
AUTOENCODER = "autoencoder.safetensors"


@dataclass(frozen=True)
class Parts:
    """What a config says, built."""

    splits: Mapping[str, Source]
    latents: Latents
    text: TextEncoders
    device: torch.device


def parts_of(cfg: DictConfig, out: Path) -> Parts:
    """Opened and built; the autoencoder is fitted and measured where nobody has done so before. Raises RunError."""
    device = Loop(accelerator=cfg.accelerator).device
    train, val = opened(cfg)
    autoencoder = autoencoder_for(cfg, train)
    try:
        text = instantiate(cfg.text)
    except InstantiationException as error:
        raise explained(error) from error
    path = out / AUTOENCODER
    if (out / PLAN).is_file():
        try:
            statistics = kept.load(path, autoencoder)
        except RunError as error:
            raise Refused(f"out={out}: it is of another autoencoder: {error}") from error
    else:
        statistics = kept.find(autoencoder, train, val, device)
        kept.save(path, autoencoder, statistics)
    latents = Latents(autoencoder, statistics.mean, statistics.std).to(device)
    return Parts({"train": train, "val": val}, latents, text.to(device), device)


def plan_of(cfg: DictConfig, parts: Parts) -> dict[str, Any]:
    """Everything that decides what the shards hold, and sizes that their readers need."""
    train, spec, autoencoder = parts.splits["train"], parts.text.spec, parts.latents.autoencoder
    each = zip(parts.text.encoders.items(), spec.lengths, spec.dims, spec.pooled, strict=True)
    a_caption = 2 * sum(n * d + p for n, d, p in zip(spec.lengths, spec.dims, spec.pooled, strict=True))
    told = f"{parts.latents.fingerprint} {parts.text.fingerprint} {cfg.dtype}"
    return {
        "format": FORMAT,
        "source": {"name": train.name, **{split: parts.splits[split].fingerprint for split in KINDS}},
        "size": list(train.size),
        "channels": train.channels,
        "latent": [parts.latents.channels, *parts.latents.latent_size(train.size)],
        "autoencoder": autoencoder.fingerprint,
        "latents": parts.latents.fingerprint,
        "dtype": cfg.dtype,
        "text": {
            name: {"fingerprint": encoder.fingerprint, "length": n, "dim": d, "pooled": p}
            for (name, encoder), n, d, p in each
        },
        **{split: len(parts.splits[split]) for split in KINDS},
        "images_per_shard": cfg.images_per_shard,
        "captions_per_shard": max(1, min(4096, _TEXT_SHARD // a_caption)),
        "fingerprint": sha256(f"{train.fingerprint} {told}".encode()).hexdigest()[:16],
    }


def stamp(plan: Mapping[str, Any]) -> str:
    """What shards carry of their plan."""
    return sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def encode_all(cfg: DictConfig, out: Path, progress: Progress) -> dict[str, Any]:
    """Makes what is missing in a folder that is locked, and returns its index.

    Where nothing is missing all shards are read and compared with their checksums; what is damaged is made anew.
    Raises Refused where the folder is of another plan, RunError.
    """
    for beside in out.glob(".*.safetensors.*"):  # what a killed process was writing
        beside.unlink(missing_ok=True)
    parts = parts_of(cfg, out)
    plan = plan_of(cfg, parts)
    _begin(out, plan)
    mark = stamp(plan)
    done = (out / INDEX).is_file()
    check = is_sound if done else header
    images = {
        shard(split, k): (split, k) for split in KINDS for k in range(-(-plan[split] // plan["images_per_shard"]))
    }
    _make(cfg, out, images, check, mark, parts, progress, "images")
    if not check(out / CAPTIONS, mark):
        _write_captions(out, plan, mark)
    captions = len(unpacked(out / CAPTIONS)[0])
    text = {shard("text", k): ("text", k) for k in range(-(-captions // plan["captions_per_shard"]))}
    _make(cfg, out, text, check, mark, parts, progress, "captions")
    shards = {
        name: {"bytes": (out / name).stat().st_size, "sha256": header(out / name, mark)}
        for name in (*images, CAPTIONS, *text)
    }
    index = {**plan, "plan": mark, "captions": captions, "shards": shards}
    replace(out / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def _begin(out: Path, plan: Mapping[str, Any]) -> None:
    """Writes the plan where there is none. Raises Refused for another one."""
    path = out / PLAN
    if not path.is_file():
        replace(path, json.dumps(plan, indent=1) + "\n")
    before = json.loads(path.read_text())
    if other := [key for key in plan if before.get(key) != plan[key] and key != "fingerprint"]:
        key = other[0]
        raise Refused(
            f"out={out}: it is of another {key} ({json.dumps(before.get(key))[:80]}) than this command asks for "
            f"({json.dumps(plan[key])[:80]}); allowed: the command that began it, or another folder"
        )


def _make(
    cfg: DictConfig,
    out: Path,
    units: Mapping[str, tuple[str, int]],
    check: Callable[[Path, str], Any],
    mark: str,
    parts: Parts,
    progress: Progress,
    title: str,
) -> None:
    """Those of the shards that are not there yet."""
    missing = [unit for name, unit in units.items() if not check(out / name, mark)]
    for unit in missing:
        (out / shard(*unit)).unlink(missing_ok=True)
    task = progress.add_task(f"shards of {title}", total=len(units), completed=len(units) - len(missing))
    there = len(gpus()) if parts.device.type == "cuda" else 1
    count = min(cfg.processes or there, len(missing))
    if count <= 1:
        work(parts, cfg, out, missing, mark, lambda: progress.advance(task))
        return
    told: Any = OmegaConf.to_container(cfg, resolve=True)
    errors: list[str] = []

    def heard(worker: Worker, message: Any) -> None:
        if isinstance(message, str):
            errors.append(message)
            fleet.stop()
        else:
            progress.advance(task)

    with Fleet(count) as fleet:
        codes = fleet.work(work_alone, [(told, str(out), missing[k::count], mark) for k in range(count)], heard)
        received = bool(fleet.received) and not errors
    if errors:
        raise RunError(errors[0])
    if received:
        raise KeyboardInterrupt
    if any(codes):
        raise RunError(f"out={out}: a process that encodes ended with {max(codes, key=abs)}; the same command goes on")


def work_alone(cfg: dict[str, Any], out: str, units: Sequence[tuple[str, int]], mark: str) -> int:
    """What a worker process does."""
    made: DictConfig = OmegaConf.create(cfg)
    try:
        work(parts_of(made, Path(out)), made, Path(out), units, mark, lambda: say(None))
    except (RunError, ValueError) as error:
        say(str(error))
        return 1
    return 0


def work(
    parts: Parts, cfg: DictConfig, out: Path, units: Sequence[tuple[str, int]], mark: str, made: Callable[[], object]
) -> None:
    """Makes shards, and calls `made` after each that was not there."""
    plan = json.loads((out / PLAN).read_text())
    left = [unit for unit in units if header(out / shard(*unit), mark) is None]
    if units and units[0][0] == "text":
        shards = _text_shards(parts, plan, out, left)
    else:
        shards = _image_shards(parts, plan, left, cfg)
    for unit, tensors in shards:
        write_shard(out / shard(*unit), tensors, mark)
        made()


def _image_shards(
    parts: Parts, plan: Mapping[str, Any], units: Sequence[tuple[str, int]], cfg: DictConfig
) -> Iterator[tuple[tuple[str, int], dict[str, np.ndarray]]]:
    """Of train latents, of val the images, with their captions."""
    per, dtype = plan["images_per_shard"], DTYPES[plan["dtype"]]
    chunks = [
        (split, start, min(start + cfg.batch_size, (k + 1) * per, plan[split]))
        for split, k in units
        for start in range(k * per, min((k + 1) * per, plan[split]), cfg.batch_size)
    ]
    if cfg.data.workers:
        keep_socket_paths_short()
    loader = DataLoader(
        _Chunks(parts.splits, chunks),
        batch_size=None,
        num_workers=cfg.data.workers if chunks else 0,
        pin_memory=parts.device.type == "cuda",
        worker_init_fn=leave_signals_to_the_parent,
    )
    loaded = iter(loader)
    for split, k in units:
        parts_of_it: list[np.ndarray] = []
        captions: list[list[str]] = []
        for _ in range(k * per, min((k + 1) * per, plan[split]), cfg.batch_size):
            images, told = _or_raise(next(loaded))
            if split == "train":
                x = parts.latents.centred(images.to(parts.device, non_blocking=True)).to(dtype).cpu().numpy()
                if not np.isfinite(x).all():
                    raise RunError(
                        f"latents of {plan['source']['name']} do not fit dtype={plan['dtype']}: float32 does"
                    )
                parts_of_it.append(x)
            else:
                parts_of_it.append(images.numpy())
            captions += told
        name = "latents" if split == "train" else "images"
        yield (split, k), {name: np.concatenate(parts_of_it), **packed(captions)}


class _Chunks(Dataset[tuple[Tensor, list[list[str]]] | RunError]):
    """What loader processes do: a few images in a row and the captions of each; of val the prompt first."""

    def __init__(self, splits: Mapping[str, Source], chunks: Sequence[tuple[str, int, int]]) -> None:
        self._splits, self._chunks = splits, chunks

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, number: int) -> tuple[Tensor, list[list[str]]] | RunError:
        split, start, stop = self._chunks[number]
        source, indices = self._splits[split], range(start, stop)
        try:
            images = torch.from_numpy(source.images(indices))  # before captions: another may stand for a broken one
        except RunError as error:
            return error
        first = [[source.prompt(i)] if split == "val" else [] for i in indices]
        return images, [told + list(source.captions(i)) for told, i in zip(first, indices, strict=True)]


def _or_raise(loaded: Any) -> Any:
    if isinstance(loaded, RunError):
        raise loaded
    return loaded


def _write_captions(out: Path, plan: Mapping[str, Any], mark: str) -> None:
    """Numbers the captions of train in the order in which they come first."""
    numbers: dict[str, int] = {}
    rows: list[int] = []
    counts: list[int] = []
    for k in range(-(-plan["train"] // plan["images_per_shard"])):
        for told in unpacked(out / shard("train", k)):
            counts.append(len(told))
            rows.extend(numbers.setdefault(caption, len(numbers)) for caption in told)
    table = {"rows": np.array(rows, np.int64), "each": np.array(counts, np.int64)}
    write_shard(out / CAPTIONS, {**packed([list(numbers)]), **table}, mark)


def _text_shards(
    parts: Parts, plan: Mapping[str, Any], out: Path, units: Sequence[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], dict[str, np.ndarray]]]:
    captions = unpacked(out / CAPTIONS)[0]
    per = plan["captions_per_shard"]
    for unit in units:
        some = captions[unit[1] * per : (unit[1] + 1) * per]
        each = [parts.text.encode(some[k : k + _TEXT_BATCH]) for k in range(0, len(some), _TEXT_BATCH)]
        tensors = {}
        for i, name in enumerate(parts.text.names):
            tokens = torch.cat([text.tokens[i].half().cpu() for text in each])
            used = (tokens != 0).any(-1).any(0).nonzero()
            tensors[f"tokens.{name}"] = tokens[:, : int(used.max()) + 1 if len(used) else 0].numpy()
            tensors[f"pooled.{name}"] = torch.cat([text.pooled[i].half().cpu() for text in each]).numpy()
        yield unit, tensors
