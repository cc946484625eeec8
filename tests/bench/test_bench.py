"""Every command on tiny sizes: whole lines, each peer once, ratios of what was measured."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowzoo.bench import fid, sample, stacked, startup, step, study
from flowzoo.bench.__main__ import main
from flowzoo.runs.signals import Notice

SIZE = ["--width=64", "--depth=1", "--image-tokens=16", "--text-tokens=4", "--batch=2", "--images=64", "--device=cpu"]
LAPS = ["--repeats=2", "--steps-per-repeat=2", "--product=64"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """The lines of a command."""

    def run(*words: str) -> list[dict[str, Any]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["flowzoo.bench", *words])
        assert main() == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert not list(tmp_path.iterdir())
        for line in lines:
            assert {"bench", "config", "flowzoo", "python", "torch", "date"} <= line.keys()
            assert "error" not in line
        return lines

    return run


def by_name(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {"-".join(str(line[k]) for k in ("measure", "peer", "loop") if k in line): line for line in lines}


def test_step_is_measured_beside_its_peers(bench: Any) -> None:
    lines = by_name(bench("step", *SIZE, *LAPS, "--peer", "plain,diffusers"))
    ours, bare = lines["ours-lightning"], lines["ours-bare"]
    assert list(lines)[:3] == ["product", "ours-bare", "ours-lightning"]
    for line in (ours, bare, lines["plain-plain"], lines["diffusers-plain"]):
        assert line["repeats"] == 2
        assert line["ms_min"] <= line["ms"] <= line["ms_max"]
        assert line["images_per_s"] == pytest.approx(2 * line["variant_steps_per_s"], abs=0.1)
        assert line["variant_steps_per_s"] == pytest.approx(1000 / line["ms"], rel=1e-3)
    ratios = lines[""]["ratios"]
    assert ratios["ours/plain"] == pytest.approx(lines["plain-plain"]["ms"] / ours["ms"], rel=1e-3)


def test_a_profile_tells_where_all_the_time_of_a_step_goes(bench: Any) -> None:
    line = by_name(bench("stacked", *SIZE, *LAPS, "--variants=2", "--peer=none", "--profile=7"))["profile-bare"]
    rows = line["kernels"]
    assert len(rows) == len({row["kernel"] for row in rows}) == 7
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    assert sum(row["ms"] for row in rows) + line["rest_ms"] == pytest.approx(line["ms"], abs=0.01)
    assert any("mm" in row["kernel"] and row["calls"] >= 4 for row in rows)  # products of embeddings, block and head


@pytest.mark.slow
def test_a_stack_is_measured_beside_one_model_and_dealt_to_processes(bench: Any) -> None:
    lines = by_name(bench("stacked", *SIZE, *LAPS, "--variants=3", "--gpus=2", "--peer=eager"))
    whole, share = lines["stacked-lightning"], lines["share-lightning"]
    assert (whole["variants"], share["variants"], lines["dealt"]["processes"]) == (3, 2, 2)
    assert whole["variant_steps_per_s"] == pytest.approx(3000 / whole["ms"], rel=1e-3)
    assert lines["dealt"]["variant_steps_per_s"] == pytest.approx(sum(lines["dealt"]["each"]), abs=0.01)
    ratios = lines[""]["ratios"]
    assert set(ratios) == {
        "stacked/stacked-bare",
        "stacked/eager",
        "3_on_2/all_3_on_1",
        "3_on_2/2_on_1",
        "lightning_overhead",
    }


def test_scoring_counts_the_passes_of_all_members(bench: Any) -> None:
    words = ["--variants=2", "--samples=66", "--sample-batch=66", "--settings=3:1,2:5", "--images=70", "--product=64"]
    lines = bench("sample", *SIZE[:-2], "--device=cpu", *words)
    for name, members in (("stacked", 4), ("solo", 2)):
        one, two, both = (line for line in lines if line.get("measure") == name)
        assert one["passes_per_s"] * one["ms"] / 1000 == pytest.approx(members * 66 * 3, rel=1e-2)
        assert two["passes_per_s"] * two["ms"] / 1000 == pytest.approx(members * 66 * 2 * 2, rel=1e-2)
        assert both["ms"] == pytest.approx(one["ms"] + two["ms"], abs=0.1)
    assert list(lines[-1]["ratios"]) == ["stacked/solo"]


@pytest.mark.slow
def test_the_default_text_is_measured_beside_itself_with_all_its_padding(bench: Any) -> None:
    lines = by_name(bench("stacked", *SIZE, *LAPS, "--default-text", "--variants=2", "--peer=padded"))
    assert "tflops" not in lines["stacked-lightning"]
    assert lines["padded-lightning"]["variants"] == 2
    assert set(lines[""]["ratios"]) == {"stacked/stacked-bare", "stacked/padded", "lightning_overhead"}
    words = ["--variants=1", "--samples=66", "--sample-batch=66", "--settings=2:5", "--product=64", "--default-text"]
    *_, last = bench("sample", *SIZE, *words, "--peer=padded")
    assert list(last["ratios"]) == ["stacked/padded"]


@pytest.mark.slow
def test_a_study_is_a_sweep_whose_phases_are_told(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A second command in the same folder finds all done."""
    folder = tmp_path_factory.mktemp("study")
    words = [
        *("study", f"--folder={folder}", "--variants=2", "--steps=4", f"--samples={66}", "autoencoder=pixels"),
        *("backbone.width=64", "backbone.depth=1", "data.source.size=80", "trainer.batch_size=4"),
        *("trainer.val_samples=8", "evaluation.reference=80", "evaluation.settings=[{steps: 2, guidance: 2.5}]"),
    ]
    whole, more = bench(*words)
    minutes = whole["minutes"]
    assert min(minutes[phase] for phase in ("start", "train", "sample", "score")) > 0
    assert sum(minutes.values()) == pytest.approx(2 * minutes["all"], abs=0.01)
    assert more["extrapolated"]["minutes"]["train"] == pytest.approx(minutes["train"] * study.STEPS / 4, abs=1)
    assert "minutes" not in more
    assert len(list(folder.glob("runs/*/*/results.csv"))) == 2
    again, _ = bench(*words)
    assert again["attempts"] == 2
    assert again["minutes"]["train"] == minutes["train"]


def test_fid_is_the_peers_value(bench: Any) -> None:
    lines = bench("fid", "--samples=400", "--dim=16", "--repeats=2", "--device=cpu")
    differences = [line["ratios"]["relative_difference"] for line in lines if "ratios" in line]
    assert len(differences) == 2 * len(fid.PEERS)
    assert max(differences) < 1e-6


def test_startup_says_what_was_imported(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "COMMANDS", (("sweeps", "list", "sd3_61"),))
    line, last = bench("startup", "--repeats=1")
    assert line["imported"] == []
    assert last["slowest_ms"] == pytest.approx(line["ms"], abs=0.1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["step", "--peer=eagr"], "--peer eagr: allowed are all, none, eager"),
        (["step", "--image-tokens=17"], "--image-tokens 17: allowed is a square"),
        (["step", "--text-tokens=155"], "--text-tokens 155: allowed is a multiple"),
        (["step", "--precision=half"], "trainer.precision=half: allowed is auto"),
        (["step", "--width=96"], "--width 96: allowed is a multiple of 64"),
        (["step", "--seconds=nan"], "nan: allowed is a number greater than 0"),
        (["fid", "--seconds=-1"], "-1: allowed is a number greater than 0"),
        (["fid", "--seconds=soon"], "soon: allowed is a number greater than 0"),
        (["fid", "--repeats=0"], "0: allowed is an integer of at least 1"),
        (["step", "--device=cpu", "--compile=cudagraphs"], "--compile cudagraphs: there is no GPU here"),
        (["stacked", "--device=cpu", "--peer=processes-cudagraphs"], "--peer processes-cudagraphs: there is no GPU"),
        (["stacked", "--variants=2", "--gpus=3"], "--gpus 3: allowed is at most one a variant, 2"),
        (["fid", "--samples=100", "--dim=100"], "--samples 100: allowed is more than --dim 100"),
        (["sample", "--settings=1:5"], "allowed are at least 2 steps"),
        (["sample", "--peer=padded"], "--peer padded: allowed with --default-text"),
        (["study", "--variants=62"], "--variants 62: allowed are at most 61"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], told: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["flowzoo.bench", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_a_measurement_that_fails_is_a_line_and_the_others_go_on(bench: Any, monkeypatch: Any, capsys: Any) -> None:
    def fails(*_: Any) -> float:
        raise MemoryError("no room")

    monkeypatch.setitem(fid.THEIRS, "torch-fidelity", fails)
    monkeypatch.setattr(sys, "argv", ["flowzoo.bench", "fid", "--samples=40", "--dim=4", "--repeats=1", "--device=cpu"])
    assert main() == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["error"] for line in lines if "error" in line] == ["MemoryError: no room"] * 2
    assert {"torchmetrics"} == {line["peer"] for line in lines if "peer" in line and "error" not in line}


def test_a_signal_under_lightning_ends_it_all(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == 3)
    monkeypatch.setattr(sys, "argv", ["flowzoo.bench", "step", *SIZE, *LAPS, "--peer=plain"])
    assert main() == 130
    out, err = capsys.readouterr()
    assert [json.loads(line).get("loop") for line in out.splitlines()] == [None, "bare"]
    assert "stopped; the lines above are whole" in err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_destructor_swallowed_ends_it_all(monkeypatch: Any, capsys: Any, in_a_terminal: None) -> None:
    class Careless:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def measured(*_: Any) -> float:
        Careless()  # Python prints the KeyboardInterrupt and goes on
        return 1.0

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(fid.THEIRS, "torch-fidelity", measured)
    monkeypatch.setattr(sys, "argv", ["flowzoo.bench", "fid", "--samples=40", "--dim=4", "--repeats=1", "--device=cpu"])
    assert main() == 130
    assert signal.getsignal(signal.SIGINT) is before
    out, err = capsys.readouterr()
    assert not any("peer" in json.loads(line) for line in out.splitlines())
    assert "stopped; the lines above are whole" in err


def test_a_missing_peer_is_skipped(bench: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(fid, "find_spec", lambda name: None)
    lines = bench("fid", "--samples=40", "--dim=4", "--repeats=1", "--device=cpu")
    assert {(line["peer"], line["skipped"]) for line in lines if "peer" in line} == {
        (peer, "not installed") for peer in fid.PEERS
    }


def test_help_answers_without_torch() -> None:
    code = "import sys; import flowzoo.bench.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert {step.PEERS[0], stacked.PEERS[0]} == {"eager"}
    assert sample.pairs("50:1,5:2.5") == [(50, 1.0), (5, 2.5)]
