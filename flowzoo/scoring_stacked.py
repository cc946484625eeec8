"""Scores many runs of one backbone together: all of them, raw and EMA, are sampled from the same noise and prompts."""

import time
from collections.abc import Mapping, Sequence

import torch
from omegaconf import DictConfig
from rich.progress import Progress

from flowzoo.build import BuiltStack, compile_mode_of
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.sampling.generate import Generator
from flowzoo.scoring import Scoring, Setting, weights_of
from flowzoo.training.checkpoint import BEST

ROOM = 16  # times evaluation.batch_size images are made at once, over all members


def score_stack(
    cfgs: Sequence[DictConfig], scorings: Mapping[int, Scoring], built: BuiltStack, progress: Progress
) -> None:
    """Writes every missing row, the same as scoring each run alone would.

    `scorings` are keyed by the runs' places among `cfgs` and in `built`.
    """
    if not scorings:
        return
    evaluation = next(iter(scorings.values())).evaluation
    device, template = evaluation.device, built.backbone
    by_setting: dict[tuple[int, float], list[tuple[int, Setting]]] = {}
    for i, scoring in scorings.items():
        for setting in scoring.missing(scoring.run.path / "checkpoints" / BEST):
            by_setting.setdefault((setting.steps, setting.guidance), []).append((i, setting))
    pairs = list(dict.fromkeys((i, setting.weights) for todo in by_setting.values() for i, setting in todo))
    if not pairs:
        return
    rows, steps = [], {}
    for i, weights in pairs:
        path = scorings[i].run.path / "checkpoints" / BEST
        state, steps[i, weights] = weights_of(cfgs[i], built, path, weights)
        rows.append(template.row(state).to(template.flat.dtype))
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        flat = template.holding(torch.stack(rows).to(device)).working().detach()  # as the generator would, once
    task = progress.add_task(
        f"sampling {len(scorings)} runs", total=evaluation.count * sum(map(len, by_setting.values()))
    )
    members: list[tuple[int, str]] = []
    for (n_steps, guidance), todo in by_setting.items():
        start = time.perf_counter()
        wanted = [(i, setting.weights) for i, setting in todo]
        if wanted != members:
            members = wanted
            places = [pairs.index(pair) for pair in members]
            stack = template.holding(flat if places == list(range(len(pairs))) else flat[places]).to(device)
            stack.requires_grad_(False)
            formulation = StackedFormulation([built.formulation.formulations[i] for i, _ in members])
            mode = compile_mode_of(evaluation.cfg, device)
            generator = Generator(stack, formulation, evaluation.solver, device, mode)
        size = evaluation.cfg.evaluation.batch_size
        size = min(size, max(1, ROOM * size // len(members)))
        scores = evaluation.score(generator, n_steps, guidance, size, lambda n: progress.advance(task, n))
        seconds = (time.perf_counter() - start) / len(members)
        for (i, setting), one in zip(todo, scores, strict=True):
            scorings[i].write(setting, steps[i, setting.weights], one, seconds)
        fids = [one.fid for one in scores if one.fid is not None]
        clips = [one.clip for one in scores]
        told = f"FID {min(fids):.2f} to {max(fids):.2f}" if fids else f"CLIP {min(clips):.4f} to {max(clips):.4f}"
        progress.console.print(
            f"{len(members)} sets of weights, {n_steps} steps, guidance {guidance:g}: {told}, {seconds:.2f} s each",
            highlight=False,
        )
