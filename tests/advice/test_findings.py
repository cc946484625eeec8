"""The table of findings: what it says can be read, and names what there is."""

import json
from pathlib import Path

import pytest

from flowzoo.advice.findings import FILE, findings, similar, standing
from flowzoo.formulation.names import TABLE

ROOT = Path(__file__).parents[2]


def test_every_line_is_a_finding_of_named_formulations() -> None:
    found = findings()
    assert len({(one.data, one.size, one.autoencoder, one.training) for one in found}) == len(found)
    for one in found:
        assert one.best
        assert all(law.name in TABLE for law in one.best)
        assert list(one.largest) == sorted(one.largest, reverse=True)
        ranks = [law.rank for law in one.best if law.rank is not None]
        assert ranks == sorted(ranks)
        assert one.source == "pilot" or not (ROOT / "docs").exists() or (ROOT / one.source).exists()


def test_committed_ranks_are_told_as_they_are() -> None:
    folder = ROOT / "docs" / "results" / "cifar10-table1"
    if not folder.exists():
        pytest.skip("the reports of docs/results/ are not in this checkout")
    (one,) = (one for one in findings() if one.source == "docs/results/cifar10-table1")
    lines = (folder / "report.md").read_text().splitlines()
    for law in one.best:
        assert any(line.startswith(f"| {law.name} | {law.rank:.2f} |") for line in lines)


def test_the_nearest_comes_first() -> None:
    found = similar(0.75, 1.18, findings())
    apart = [one.distance(0.75, 1.18) for one in found]
    assert apart == sorted(apart)
    assert len(found) == len(findings())


def test_how_the_rule_stands_is_counted(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in FILE.read_text().splitlines()]
    file = tmp_path / "findings.jsonl"
    verdicts = ("fits", "contradicts", "contradicts", "open")
    file.write_text("".join(json.dumps({**lines[0], "verdict": verdict}) + "\n" for verdict in verdicts))
    told = standing(findings(file))
    assert told.startswith(
        "The rule is a hypothesis and not confirmed. Of 4 representations with runs it fits 1, 2 con"
    )


BAD = [
    ({"verdict": "perhaps"}, "verdict=perhaps: allowed are fits"),
    ({"mean": None, "more": 1}, "more"),
    ({"best": [{}]}, "name"),
]


@pytest.mark.parametrize(("change", "named"), BAD)
def test_a_line_that_is_no_finding_is_named(tmp_path: Path, change: dict, named: str) -> None:
    good = json.loads(FILE.read_text().splitlines()[0])
    file = tmp_path / "findings.jsonl"
    file.write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
    with pytest.raises(ValueError, match=rf"findings\.jsonl:2: .*{named}"):
        findings(file)
