import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from flowzoo.metrics import train_clip
from flowzoo.metrics.clip_data import Augment, load_set
from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.train_clip import contrastive_loss, schedule, train


def units(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_distinct_captions_give_clips_loss() -> None:
    image, text, scale = units(6, 0), units(6, 1), torch.tensor(7.0, dtype=torch.float64)
    logits = scale * image @ text.T
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(image, text, scale, labels), expected)


def test_equal_captions_are_hits_and_not_negatives() -> None:
    captions = torch.tensor([0, 1, 0, 2, 1, 0])
    image, text = units(6, 0).requires_grad_(), units(3, 1)[captions]
    scale = torch.tensor(5.0, dtype=torch.float64)
    logits = (scale * image @ text.T).detach().requires_grad_()
    # The loss as a function of logits: bring them in through an identity text.
    loss = contrastive_loss(logits, torch.eye(6, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), captions)
    (slope,) = torch.autograd.grad(loss, logits)
    equal = captions[:, None] == captions[None, :]
    assert (slope[equal] <= 0).all()  # pulled together
    assert (slope[~equal] > 0).all()  # pushed apart
    # A batch of one caption has nothing to tell apart.
    same = torch.zeros(6, dtype=torch.long)
    loss = contrastive_loss(image, text[:1].expand(6, -1), scale, same)
    assert loss.abs() < 1e-12
    assert torch.autograd.grad(loss, image)[0].abs().max() < 1e-12


def test_schedule_rises_then_falls_to_zero() -> None:
    values = [schedule(step, 100, 10) for step in range(101)]
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert max(values) == pytest.approx(1.0)
    assert values[100] == pytest.approx(0.0, abs=1e-12)


def test_training_repeats(numbers: Any, architecture: dict[str, Any]) -> None:
    data = load_set(numbers, 16, workers=0)
    recipe = partial(
        train, data, architecture, Augment(), batch_size=32, lr=3e-3, weight_decay=0.0, warmup_steps=5, compile=False
    )
    model = recipe(steps=3, seed=0)
    again, other = recipe(steps=3, seed=0), recipe(steps=3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.visual.proj, other.visual.proj)


def test_infinite_loss_stops(numbers: Any, architecture: dict[str, Any]) -> None:
    data = load_set(numbers, 16, workers=0)
    with pytest.raises(FloatingPointError, match="lr=inf"):
        train(
            data,
            architecture,
            Augment(),
            steps=3,
            batch_size=8,
            lr=math.inf,
            weight_decay=0.0,
            warmup_steps=0,
            seed=0,
            compile=False,
        )


def test_run_writes_what_the_extractor_reads(tmp_path: Any, architecture: dict[str, Any]) -> None:
    shapes = {"_target_": "flowzoo.data.shapes.Shapes", "captions": "mix"}
    augment = {"_target_": "flowzoo.metrics.clip_data.Augment", "translate": 0.05, "halve": 0.3}
    measure = {"_target_": "flowzoo.metrics.quality.retrieval_top1", "_partial_": True, "n": 64, "groups": 2}
    recipe = {"steps": 150, "batch_size": 64, "lr": 3e-3, "weight_decay": 0.1, "warmup_steps": 20}
    wide = architecture | {"text_cfg": architecture["text_cfg"] | {"context_length": 32}}
    clip = {
        "architecture": wide,
        "source": {"size": 2000},
        "augment": augment,
        "recipe": recipe,
        "quality": {"what": "top-1", "measure": measure},
    }
    data = {"name": "shapes", "workers": 2, "source": shapes}
    output = tmp_path / "clip.safetensors"
    quality = train_clip.run(
        OmegaConf.create({"data": data, "clip": clip, "output": str(output), "seed": 0, "compile": False})
    )
    extractor = Extractor(output)
    assert extractor.quality == quality
    assert extractor.identity["name"] == "clip_shapes"
    assert quality["value"] > 10 / 64  # ten times chance
