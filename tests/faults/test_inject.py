"""Three random moments at which a sweep is hit; the script takes any number (docs/reliability.md)."""

import json
from pathlib import Path

import pytest
import torch
from prepared import Prepared
from twin import apart


@pytest.mark.slow
def test_a_sweep_hit_at_random_moments_is_the_undisturbed_one(
    prepared: Prepared, tmp_path: Path, random_extractor: list[str]
) -> None:
    script, report = Path(__file__).with_name("inject.py"), tmp_path / "report.json"
    short = ["--moments", "3", "--span", "5", "--seed", "1", "seeds=1", "trainer.steps=60", *random_extractor]
    done = prepared.run([script, "local", *short, "--report", report, "--keep", tmp_path / "sweeps"])
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert len(told["strikes"]) == 3
    assert told["problems"] == []
    assert not any("Traceback" in log.read_text() for log in (tmp_path / "sweeps").glob("*.log"))


def test_the_last_bit_of_a_number_counts() -> None:
    one = {"a": [torch.ones(3), 1.0], "b": {"c": (1, "x", None)}}
    same = {"a": [torch.ones(3), 1.0], "b": {"c": (1, "x", None)}}
    assert not list(apart(one, same))
    other = {"a": [torch.tensor([1.0, 1.0, 1.0 + 2**-23]), 1.0 - 2**-53], "b": {"c": (2, "x", None)}}
    assert list(apart(one, other)) == [
        ("a", pytest.approx(2**-23)),
        ("a", pytest.approx(2**-53)),
        ("b.c", float("inf")),
    ]
    assert list(apart({"a": torch.ones(3)}, {"a": torch.ones(4)})) == [("a", float("inf"))]
    assert list(apart({"a": 1}, {"b": 1})) == [("", float("inf"))]
