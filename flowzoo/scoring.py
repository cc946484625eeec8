"""Samples a trained run in every sampler setting of the protocol, scores it, and writes one row a setting."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image
from rich.progress import Progress
from torch import Tensor

from flowzoo.build import Built, backbone_label, backbone_of, compile_mode_of
from flowzoo.data.source import Source, shuffled
from flowzoo.encoders.text import Text
from flowzoo.formulation.names import variant_name
from flowzoo.metrics.clip import clip_score
from flowzoo.metrics.fid import frechet_distance, reference_moments
from flowzoo.metrics.moments import Moments
from flowzoo.metrics.protocol import protocol_hash
from flowzoo.runs.store import Run
from flowzoo.sampling.generate import Generator, batches, start_noise
from flowzoo.training.checkpoint import load_weights

COLUMNS = 8  # of the sample grid


@dataclass(frozen=True)
class Setting:
    """One of the paper's sampler settings (sec. 5.1), with one set of weights."""

    weights: str
    steps: int
    guidance: float


def settings_of(cfg: DictConfig) -> list[Setting]:
    pairs = [(int(s.steps), float(s.guidance)) for s in cfg.evaluation.settings]
    return [Setting(w, steps, guidance) for w, (steps, guidance) in product(cfg.evaluation.weights, pairs)]


class Scoring:
    """Everything that is the same for all settings of one run: prompts, their text, the reference, the protocol."""

    def __init__(self, cfg: DictConfig, run: Run, built: Built, val: Source, device: torch.device) -> None:
        self.cfg, self.run, self.built, self.device = cfg, run, built, device
        built.to(device)
        self.extractor = instantiate(cfg.metric).to(device)
        self.count = cfg.evaluation.samples
        self.prompts = [val.prompt(i) for i in shuffled(val, self.count)]
        reference = min(len(val), cfg.evaluation.reference)
        self.reference = reference_moments(self.extractor, val, reference, Path(cfg.runs) / ".cache")
        self.solver = instantiate(cfg.solver)
        self.protocol = protocol_hash(
            extractor=self.extractor.identity,
            n_samples=self.count,
            reference=val.fingerprint,
            n_reference=reference,
            prompts=self.prompts,
            seed=cfg.evaluation.seed,
        )
        run.write_json(
            "extractor.json",
            {
                "identity": self.extractor.identity,
                "quality": self.extractor.quality,
                "reference": {"fingerprint": val.fingerprint, "n": reference},
                "n_samples": self.count,
                "protocol": self.protocol,
            },
        )

    def row(self, setting: Setting, step: int, **numbers: Any) -> dict[str, Any]:
        cfg = self.cfg
        return {
            "run": self.run.path.name,
            "variant": variant_name(cfg.path, cfg.sampler),
            "dataset": cfg.data.name,
            "backbone": backbone_label(cfg),
            "seed": cfg.seed,
            "step": step,
            "weights": setting.weights,
            "rule": self.solver.name,
            "grid": self.solver.grid.name,
            "shift": self.solver.shift,
            "steps": setting.steps,
            "guidance": setting.guidance,
            "n_samples": self.count,
            "protocol": self.protocol,
            **numbers,
        }

    def missing(self) -> list[Setting]:
        """The settings without a row of this protocol and solver."""
        keys = ("weights", "steps", "guidance", "rule", "grid", "shift", "protocol")
        have = {tuple(str(row[key]) for key in keys) for row in self.run.rows()}
        rows = ((s, self.row(s, 0)) for s in settings_of(self.cfg))
        return [s for s, row in rows if tuple(str(row[key]) for key in keys) not in have]

    def diverged(self, step: int) -> None:
        """Rows without scores, so that the ranking knows in which settings the variant should have been."""
        self.run.write_rows([self.row(s, step, status="diverged") for s in settings_of(self.cfg)])

    def score(self, checkpoint: Path, progress: Progress) -> Iterator[dict[str, Any]]:
        """Yields each new row, already written."""
        todo = self.missing()
        task = progress.add_task(f"sampling {self.run.path.name}", total=len(todo) * self.count)
        mode = compile_mode_of(self.cfg, self.device)
        generator = Generator(self.built.backbone, self.built.formulation, self.solver, self.device, mode)
        text = self._encoded()
        prompt_features = self.extractor.text(self.prompts)
        step = 0
        for i, setting in enumerate(todo):
            if i == 0 or setting.weights != todo[i - 1].weights:
                step = self._load(setting.weights, checkpoint)
            row = self._score_one(generator, setting, step, text, prompt_features, progress, task)
            self.run.write_rows([row])
            yield row

    def _load(self, weights: str, checkpoint: Path) -> int:
        """Returns the step of the weights; `init` are made again from the seed."""
        backbone = self.built.backbone
        if weights == "init":
            backbone.load_state_dict(backbone_of(self.cfg, self.built.autoencoder, self.built.text).state_dict())
            return 0
        return load_weights(checkpoint, backbone, weights)

    def _encoded(self) -> Text:
        """The prompts' text, kept in half precision on the CPU (paper, Table 7)."""
        unique = sorted(set(self.prompts))
        at = {prompt: i for i, prompt in enumerate(unique)}
        parts = [
            self.built.text.encode(unique[i : i + n]).to("cpu", torch.float16) for i, n in batches(len(unique), 500)
        ]
        whole = Text(
            tuple(torch.cat(x) for x in zip(*(p.tokens for p in parts), strict=True)),
            tuple(torch.cat(x) for x in zip(*(p.pooled for p in parts), strict=True)),
        )
        return whole.rows(torch.tensor([at[prompt] for prompt in self.prompts]))

    def _score_one(
        self,
        generator: Generator,
        setting: Setting,
        step: int,
        text: Text,
        prompt_features: Tensor,
        progress: Progress,
        task: Any,
    ) -> dict[str, Any]:
        start = time.perf_counter()
        moments, clip, length, nfe = Moments(self.extractor.dim), [], [], 0
        shown: list[Tensor] = []
        autoencoder = self.built.autoencoder
        size = autoencoder.latent_size(self.cfg.data.source.image_size)
        shape = (autoencoder.channels, size, size)
        wide = self.cfg.evaluation.batch_size
        for first, n in batches(self.count, wide):
            noise = start_noise(self.cfg.evaluation.seed, first, n, shape)
            prompt = text.rows(slice(first, first + n)).to(self.device, torch.float32)
            made = generator(noise, prompt, self.built.text.null(n), setting.steps, setting.guidance)
            images = autoencoder.decode(made.latents)
            features = self.extractor.images(images)
            moments.update(features)
            clip.append(clip_score(features, prompt_features[first : first + n]))
            length.append(made.path_length.double())
            nfe = made.nfe
            if sum(map(len, shown)) < self.cfg.evaluation.grid:
                shown.append(images.cpu())
            progress.advance(task, n)
        self._save_grid(setting, torch.cat(shown)[: self.cfg.evaluation.grid])
        return self.row(
            setting,
            step,
            nfe=nfe,
            fid=frechet_distance(moments, self.reference),
            clip=float(torch.cat(clip).mean()),
            path_length=float(torch.cat(length).mean()),
            seconds=round(time.perf_counter() - start, 3),
            status="done",
        )

    def _save_grid(self, setting: Setting, images: Tensor) -> None:
        """samples/<setting>.png; the setting with the most steps and guidance is samples/grid.png too."""
        folder = self.run.path / "samples"
        folder.mkdir(exist_ok=True)
        name = f"{setting.weights}_{setting.steps}_steps_guidance_{setting.guidance:g}.png"
        save_grid(folder / name, images)
        shown = max(
            settings_of(self.cfg), key=lambda s: (s.weights == self.cfg.evaluation.weights[0], s.steps, s.guidance)
        )
        if setting == shown:
            save_grid(folder / "grid.png", images)
            (folder / "prompts.txt").write_text("\n".join(self.prompts[: len(images)]) + "\n")


def save_grid(path: Path, images: Tensor, columns: int = COLUMNS, gap: int = 2) -> None:
    """uint8 images [n, 3, H, W] as one PNG of rows of `columns`, on white."""
    n, _, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = torch.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        canvas[top : top + h, left : left + w] = image.permute(1, 2, 0)
    part = path.with_name(path.name + ".part")
    Image.fromarray(canvas.numpy()).save(part, format="PNG")
    part.replace(path)
