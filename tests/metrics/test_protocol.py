import re
import shutil
from typing import Any

from flowzoo.build import jobs_of
from flowzoo.content import SHIPPED
from flowzoo.judge import Judge
from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.protocol import protocol_hash
from flowzoo.runs.config import compose_jobs, config_loader

BASE: dict[str, Any] = {
    "extractor": {"name": "a", "weights_sha256": "0", "resize": "bicubic", "dtype": "float32", "dim": 64},
    "autoencoder": {"_target_": "Pixels", "gain": 1},
    "metrics": [{"name": "fid"}, {"name": "clip"}],
    "n_samples": 2000,
    "reference": "f",
    "n_reference": 10_000,
    "prompts": ["one", "two"],
    "seed": 0,
}


def test_everything_moves_the_hash() -> None:
    changes: list[dict[str, Any]] = [
        *({"extractor": BASE["extractor"] | {key: "changed"}} for key in BASE["extractor"]),
        {"autoencoder": {"_target_": "BlockPCA", "gain": 1}},
        {"metrics": [{"name": "fid"}]},
        {"metrics": [{"name": "fid"}, {"name": "clip", "version": 2}]},
        {"n_samples": 1000},
        {"reference": "g"},
        {"n_reference": 5000},
        {"prompts": ["two", "one"]},
        {"prompts": ["one"]},
        {"seed": 1},
    ]
    hashes = [protocol_hash(**BASE | change) for change in [{}, *changes]]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{10}", h) for h in hashes)


def test_hash_is_stable() -> None:
    shuffled = BASE | {"extractor": dict(reversed(BASE["extractor"].items())), "prompts": ("one", "two")}
    assert protocol_hash(**BASE) == protocol_hash(**shuffled) == PINNED


PINNED = "33227433d7"  # over releases: stored rows must stay comparable


class Blurred(Extractor):
    """A metric of one's own, whose features a parameter changes, and which says no word of it."""

    def __init__(self, weights: str | None = None, sigma: float = 1.0) -> None:
        super().__init__(weights)


def test_all_that_makes_a_metric_is_part_of_the_protocol(tmp_path):
    def protocol(*words: str) -> str:
        small = [
            "text=words",
            "autoencoder=pixels",
            "data.source.image_size=16",
            "data.source.size=128",
            f"runs={tmp_path}",
        ]
        few = ["evaluation=quick", "evaluation.samples=66", "evaluation.reference=66"]
        with config_loader() as loader:
            (cfg,) = compose_jobs(loader, "train", [*small, *few, *words], multirun=False)
        (job,) = jobs_of([cfg])
        return Judge(job).protocol

    own = [f"extractor._target_={__name__}.Blurred", "+extractor.sigma=1"]
    one, other = protocol(*own), protocol(*own[:1], "+extractor.sigma=2.0")
    assert one != other
    assert len(list((tmp_path / ".cache").iterdir())) == 2  # nor do they share a reference
    assert protocol(*own[:1], "+extractor.sigma=1.0") == one
    assert protocol() not in (one, other)
    copied = shutil.copyfile(SHIPPED, tmp_path / "same.safetensors")
    assert (
        protocol()
        == protocol("extractor=clip_file", f"extractor.weights={copied}")
        == protocol("+extractor.batch_size=64")
    )
