"""One meaning of each state, and no content of a file that a reader falls over or takes for another."""

import csv
import io
import json
from dataclasses import asdict, replace

import pytest
import yaml

from flowzoo.runs.layout import ALL_STATES, STATES
from flowzoo.runs.lock import LOCK, Owner
from flowzoo.runs.reading import RunFolder, parse_config
from flowzoo.runs.rows import parse_rows

TABLE = "variant,fid,clip,steps\nrf,1.0,0.2,50\n"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "rf_lognorm_0.00_1.00-s3-0123abcd"
    path.mkdir()
    return path


def test_every_state_has_one_meaning(folder) -> None:
    seen = {RunFolder(folder.with_name("absent"), {"variant": "rf"}).state}
    assert seen == {"queued"}
    assert RunFolder(folder).state == "missing"
    assert RunFolder(folder, {"variant": "rf"}).state == "queued"
    (folder / "results.csv").write_text(TABLE)
    assert RunFolder(folder).state == "done"
    for state in STATES:
        (folder / "status.json").write_text(json.dumps({"state": state}))
        seen.add(told := RunFolder(folder).state)
        assert told == ("lost" if state == "running" else state)
    (folder / LOCK).write_text(json.dumps(asdict(Owner.here())))
    (folder / "status.json").write_text('{"state": "running"}')
    seen.add(RunFolder(folder).state)
    (folder / "status.json").write_text('{"state": "well"}')
    seen.add(RunFolder(folder).state)
    assert seen | {"missing"} == set(ALL_STATES)


def test_a_run_is_lost_once_its_owner_or_its_job_is_gone(folder) -> None:
    (folder / "status.json").write_text('{"state": "running"}')
    assert (RunFolder(folder).state, RunFolder(folder).why_lost) == ("lost", "its process ended without a word")
    (folder / LOCK).write_text(json.dumps(asdict(replace(Owner.here(), started=0))))
    assert RunFolder(folder).why_lost.endswith("is gone")
    (folder / LOCK).write_text(json.dumps(asdict(replace(Owner.here(), place="another boot", job="6"))))
    assert RunFolder(folder).state == "running"
    assert RunFolder(folder, ended="OUT_OF_MEMORY").why_lost.endswith("is gone, its job is OUT_OF_MEMORY")


BROKEN = {
    "status.json": [
        b"", b'{"state": "do', b"[]", b"{}", b'{"state": 5}', b'{"state": "done", "step": "x"}', b"\xff",
        b'{"state": "done", "attempt": true}', b"[" * 100_000,
    ],
    "config.yaml": [b"", b"a: [1", b"- 1\n", b"text", b"a: \xff", b"[" * 100_000],
    "results.csv": [
        b"", b"a,b\n1,2\n", b"variant,fid,clip\nrf,1.0,0.2", b"variant,fid,clip\nrf,1.0\n",
        b"variant,fid,clip\nrf,x,1\n", b"variant,fid,clip\nrf\xff,1,1\n",
        b"variant,fid,clip\n" + b"x" * 200_000 + b",1,1\n",
    ],
    "extractor.json": [b"", b"[]", b"{", b"\xff"],
    "density.csv": [b"u,t\n0.5\n", b"u\nx\n", b"u\n\xff\n"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), [(n, c) for n, cs in BROKEN.items() for c in cs])
def test_broken_content_is_named_and_nothing_is_made_of_it(folder, name, content) -> None:
    (folder / name).write_bytes(content)
    run = RunFolder(folder)
    read = (run.status, run.config, run.rows, run.extractor, run.density, run.metrics, run.state)
    assert read == ({}, {}, [], {}, {}, [], "damaged" if name == "status.json" else "missing")
    (told,) = run.complaints()
    assert told.startswith(f"cannot read {folder / name}: ")


@pytest.mark.parametrize("name", ["status.json", "config.yaml", "results.csv", "metrics.jsonl", "extractor.json"])
@pytest.mark.parametrize("kind", ["folder", "link to nothing", "loop"])
def test_what_lies_in_a_files_place_is_named(folder, name, kind) -> None:
    path = folder / name
    path.mkdir() if kind == "folder" else path.symlink_to("gone" if kind == "link to nothing" else name)
    assert [line.partition(": ")[0] for line in RunFolder(folder).complaints()] == [f"cannot read {path}"]
    run = RunFolder(folder)
    assert (run.status, run.config, run.rows, run.metrics, run.extractor) == ({}, {}, [], [], {})
    assert len(run.complaints()) == 1
    assert run.state == ("damaged" if name == "status.json" else "missing")


def test_a_lock_that_cannot_be_read_says_nothing_of_its_owner(folder) -> None:
    (folder / "status.json").write_text('{"state": "running"}')
    (folder / LOCK).mkdir()
    run = RunFolder(folder)
    assert run.state == "damaged"
    assert run.complaints() == [f"cannot read {folder / LOCK}: Is a directory"]


def test_a_file_or_a_link_to_nothing_in_a_runs_place_is_damaged(tmp_path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    for name in ("file", "link"):
        run = RunFolder(tmp_path / name)
        assert run.state == "damaged"
        assert run.complaints()[0].startswith(f"cannot read {tmp_path / name}: ")


def test_metrics_pass_over_what_is_no_record(folder) -> None:
    (folder / "metrics.jsonl").write_bytes(b'{"step": 1}\n[]\n{"step": "x"}\n\xff\n\n{"step": 2, "x": NaN}\n{"st')
    assert [record["step"] for record in RunFolder(folder).metrics] == [1, 2]
    assert [record["step"] for record in RunFolder(folder).last_metrics] == [2, 1]
    assert RunFolder(folder).complaints() == []


def test_rows_cut_anywhere_are_whole_or_left_out() -> None:
    text = TABLE + "v,2.0,0.25,5\n"
    rows, _ = parse_rows(text)
    for end in range(1, len(text)):
        some, wrong = parse_rows(text[:end])
        assert some == rows[: len(some)]
        assert wrong or text[:end].endswith("\n")


@pytest.mark.parametrize("name", ["v/Mine(a\u2028b)", "a\x85b", "a\x0cb", "a\u2029", '"a", b', "a\nb"])
def test_rows_are_cut_where_csv_cuts_them(name) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["variant", "fid", "clip"], [name, 1.0, 0.2], ["rf", 2.0, 0.3]])
    rows, wrong = parse_rows(text.getvalue())
    assert ([row["variant"] for row in rows], wrong) == ([name, "rf"], "")


def test_prompts_are_cut_at_ends_of_lines_alone(folder) -> None:
    (folder / "samples").mkdir()
    (folder / "samples" / "prompts.txt").write_text("a\u2028b\nc\n", encoding="utf-8")
    assert RunFolder(folder).prompts == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    "text",
    ["a: {b: 1,\nc: 2}\n", 'a: "x\ny"\n', "a: &x [1]\nb: *x\n", "---\na: 1\n...\n", "a:\n- 1\n# c\nb: |\n  c: 1\n"],
)
def test_configs_are_read_as_yaml_however_they_are_written(text) -> None:
    assert parse_config(text) == yaml.safe_load(text)


def test_a_config_says_where_its_folder_lies(folder) -> None:
    (folder / "config.yaml").write_text("runs: old\nsweep: gone\nseed: 3\n")
    parent = folder.parent
    assert RunFolder(folder).config == {"runs": str(parent.parent), "sweep": parent.name, "seed": 3}
