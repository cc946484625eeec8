import re
from typing import Any

from flowzoo.metrics.protocol import protocol_hash

BASE: dict[str, Any] = {
    "extractor": {"name": "a", "weights_sha256": "0", "resize": "bicubic", "dtype": "float32", "dim": 64},
    "n_samples": 2000,
    "reference": "f",
    "n_reference": 10_000,
    "prompts": ["one", "two"],
    "seed": 0,
}


def test_everything_moves_the_hash() -> None:
    changes: list[dict[str, Any]] = [
        *({"extractor": BASE["extractor"] | {key: "changed"}} for key in BASE["extractor"]),
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


PINNED = "ba154eec38"  # over releases: stored rows must stay comparable
