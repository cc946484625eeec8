"""The run folder: whole files whatever happens, one row a setting, one writer."""

import json
import multiprocessing
import os
import subprocess
import sys

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from flowzoo.runs import store
from flowzoo.runs.layout import AFTER_METRICS, BEFORE_METRICS, SETTING
from flowzoo.runs.reading import RunFolder
from flowzoo.runs.store import Interrupted, Run, RunBusy, RunError, attempt


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def cfg(tmp_path) -> DictConfig:
    module = "flowzoo.formulation."
    return OmegaConf.create(
        {
            "runs": str(tmp_path / "runs"),
            "sweep": "s",
            "seed": 0,
            "path": {
                "schedule": {"_target_": module + "schedule.RF"},
                "target": {"_target_": module + "target.Velocity"},
            },
            "sampler": {"_target_": module + "timestep.Uniform"},
            "size": {"a": 1, "b": "${size.a}"},
        }
    )


def test_create_writes_the_resolved_config_and_open_reads_it(cfg):
    run = Run.create(cfg)
    assert run.state == "queued"
    assert run.status["variant"] == "rf"
    assert Run.open(run.path).config.size.b == 1
    assert "${" not in (run.path / "config.yaml").read_text()


def test_only_who_holds_the_lock_replaces_the_config(cfg):
    run = Run.create(cfg)
    before = (run.path / "config.yaml").read_text()
    cfg.evaluation = {"samples": 5}  # not in the hash: the same folder
    assert Run.create(cfg).path == run.path
    with pytest.raises(ValueError, match="no"):
        attempt(fails, cfg)
    assert (run.path / "config.yaml").read_text() == before
    with run.lock():
        run.set_config(cfg)
    assert run.config.evaluation.samples == 5


def test_who_comes_late_to_create_a_run_changes_nothing(cfg, monkeypatch):
    """Two processes find no run; before the second one writes, the first has made it and trained it."""
    late = cfg.copy()
    late.evaluation = {"samples": 5}
    real = store.create

    def after_another(path, content):
        monkeypatch.setattr(store, "create", real)
        Run.create(cfg).set_status("done")
        real(path, content)

    monkeypatch.setattr(store, "create", after_another)
    run = Run.create(late)
    assert run.state == "done"
    assert "evaluation" not in run.config
    monkeypatch.setattr(store, "create", after_another)
    (run.path / "status.json").unlink()
    assert Run.create(late).state == "done"
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "status.json"}


def test_open_refuses_what_is_no_run(tmp_path):
    for path, words in ((tmp_path / "absent", "no folder"), (tmp_path, "no run folder")):
        with pytest.raises(RunError, match=words) as error:
            Run.open(path)
        assert str(path) in str(error.value)


def test_status_is_old_or_new_but_never_half(run, monkeypatch):
    run.set_status("running", step=3)
    before = (run.path / "status.json").read_text()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.set_status("done")
    assert (run.path / "status.json").read_text() == before
    assert [path.name for path in run.path.iterdir()] == ["status.json"]


def test_a_full_disk_is_one_clear_message(run, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"status\.json: No space left on device"):
        run.set_status("running")
    assert list(run.path.iterdir()) == []


def test_attempts_count_processes_and_fields_stay(run, monkeypatch):
    run.set_status("running", steps=10)
    run.set_status("running", step=5)  # a sign of life, no new attempt
    first = run.status
    assert (first["attempt"], first["steps"], first["step"], first["pid"]) == (1, 10, 5, os.getpid())
    run.set_status("failed", exception="ValueError: no")
    assert run.status["finished"] is not None
    run.set_status("running")
    assert run.status["attempt"] == 2
    assert run.status["exception"] is None
    assert run.status["finished"] is None
    monkeypatch.setattr(os, "getpid", lambda: first["pid"] + 1)  # the process died without a word; another goes on
    run.set_status("running")
    assert run.status["attempt"] == 3
    assert run.status["code_version"] == store.code_version()


def test_states_are_those_of_the_design(run):
    with pytest.raises(ValueError, match="state 'finished': allowed are queued, running, done"):
        run.set_status("finished")


def test_metrics_survive_a_cut_line(run):
    run.append_metrics({"step": 1, "train_loss": 0.5})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "train_')  # killed here
    run.append_metrics({"step": 2, "train_loss": float("nan")})
    assert [record["step"] for record in run.metrics()] == [1, 2]


@pytest.mark.parametrize("step", [0, 1, 2, 5])
def test_truncating_then_writing_again_equals_never_having_stopped(run, step):
    for i in range(1, 4):
        run.append_metrics({"step": i})
    run.truncate_metrics(step)
    for i in range(step + 1, 4):
        run.append_metrics({"step": i})
    assert [record["step"] for record in run.metrics()] == [1, 2, 3]


def row(**cells):
    return {"weights": "ema", "steps": 50, "guidance": 5.0, "fid": 1.0, **cells}


def test_rows_have_the_columns_in_order_and_come_back_typed(run):
    run.write_rows([row(guidance=5, fid=float("nan"), clip=0.25)])
    columns = [*BEFORE_METRICS, "fid", "clip", *AFTER_METRICS]
    assert (run.path / "results.csv").read_text().splitlines()[0] == ",".join(columns)
    (read,) = run.rows()
    assert list(read) == columns
    assert read["steps"] == 50
    assert isinstance(read["guidance"], float)
    assert read["fid"] != read["fid"]
    assert read["protocol"] is None


def test_a_row_takes_the_place_of_its_setting_alone(run):
    run.write_rows([row(), row(steps=5)])
    run.write_rows([row(fid=2.0, step=7, guidance=5)])
    assert [(r["steps"], r["fid"]) for r in run.rows()] == [(50, 2.0), (5, 1.0)]
    others = {"guidance": 1.0, "steps": 3, "shift": 2.0}
    for i, column in enumerate(SETTING):
        run.write_rows([row(**{column: others.get(column, "other")})])
        assert len(run.rows()) == 3 + i


def test_rows_carry_whatever_metrics_they_bring_and_older_ones_are_empty_there(run):
    run.write_rows([row(clip=0.2)])
    run.write_rows([row(steps=5, kid=0.5), row(steps=10, geneval=None, clip=0.1)])
    header = (run.path / "results.csv").read_text().splitlines()[0].split(",")
    assert header == [*BEFORE_METRICS, "fid", "clip", "kid", "geneval", *AFTER_METRICS]
    metrics = [[r[name] for name in ("fid", "clip", "kid", "geneval")] for r in run.rows()]
    assert metrics == [[1.0, 0.2, None, None], [1.0, None, 0.5, None], [1.0, 0.1, None, None]]
    assert [r["steps"] for r in RunFolder(run.path).rows] == ["50", "5", "10"]


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"a b": 1}, "metric 'a b': allowed are names"),
        ({"kid": "low"}, "kid='low': .* a number"),
        ({"steps": "x"}, "steps="),
    ],
)
def test_what_is_no_metric_is_refused_and_nothing_lost(run, cells, told):
    run.write_rows([row()])
    before = (run.path / "results.csv").read_bytes()
    with pytest.raises(ValueError, match=told):
        run.write_rows([row(**cells)])
    assert (run.path / "results.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\r\nb", '"a", b', "a\u2028b", "\r"])
def test_rows_come_back_whatever_a_name_holds(run, name):
    run.write_rows([row(variant=name), row(variant=name, steps=5)])
    assert [r["variant"] for r in run.rows()] == [name, name]
    assert [r["variant"] for r in RunFolder(run.path).rows] == [name, name]


def test_a_foreign_table_is_a_clear_error(run):
    (run.path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="no table of results"):
        run.rows()


def test_a_table_cut_anywhere_is_refused_and_never_read_wrongly(run):
    run.write_rows([row(), row(steps=5)])
    text = (run.path / "results.csv").read_text()
    starts = {sum(map(len, text.splitlines(keepends=True)[:n])) for n in (1, 2)}
    for end in set(range(1, len(text))) - starts:
        (run.path / "results.csv").write_text(text[:end])
        with pytest.raises(RunError, match=r"results\.csv is no table of results"):
            run.rows()


@pytest.mark.parametrize("content", ["", '{"state": "run', "[]"])
def test_a_broken_status_is_told_once_and_then_replaced(cfg, content):
    run = Run.create(cfg)
    (run.path / "status.json").write_text(content)
    with pytest.raises(RunError, match=r"cannot read .*status\.json"):
        attempt(Run.create, cfg)
    assert run.state == "failed"
    assert run.status["variant"] == "rf"


@pytest.mark.parametrize("file", ["status.json", "metrics.jsonl", "results.csv", "config.yaml"])
def test_a_folder_in_place_of_a_file_is_one_clear_message(cfg, file):
    run = Run.create(cfg)
    (run.path / file).unlink(missing_ok=True)
    (run.path / file).mkdir()

    def writes(cfg):
        run.set_config(cfg)
        run.set_status("running")
        run.append_metrics({"step": 1})
        run.write_rows([row()])

    with pytest.raises(RunError, match=f"{file}: Is a directory"):
        attempt(writes, cfg)


def test_a_file_in_place_of_the_folder_is_one_clear_message(cfg, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match=r"cannot create the run folder .*: Not a directory"):
        attempt(Run.create, cfg)


def _hold(path, ready):
    with Run(path).lock():
        ready.send(os.getpid())
        ready.recv()
        os._exit(9)  # dies without letting go


def fails(_):
    raise ValueError("no such thing")


def test_the_lock_excludes_names_its_owner_and_dies_with_it(run):
    fork = multiprocessing.get_context("spawn")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_hold, args=(run.path, theirs))
    process.start()
    pid = ours.recv()
    with pytest.raises(RunBusy, match=f"is being trained by process {pid} on "), run.lock():
        pass
    ours.send(None)
    process.join()
    with run.lock(), pytest.raises(RunBusy), Run(run.path).lock():
        pass
    with run.lock():
        pass
    assert list(run.path.iterdir()) == []


def test_who_lost_the_lock_writes_nothing_more(run):
    run.write_rows([row()])
    run.append_metrics({"step": 1})
    before = {path.name: path.read_text() for path in run.path.iterdir()}
    writes = (
        lambda: run.set_status("done"),
        lambda: run.append_metrics({"step": 2}),
        lambda: run.truncate_metrics(0),
        lambda: run.write_rows([row(steps=7)]),
        run.check_lock,
    )
    with run.lock():
        (run.path / ".lock").unlink()  # as after a takeover, or by hand
        for write in writes:
            with pytest.raises(RunBusy, match="took this run over"):
                write()
    assert {path.name: path.read_text() for path in run.path.iterdir()} == before


def test_a_failure_is_not_written_over_a_run_that_another_trains(cfg):
    run = Run.create(cfg)
    with run.lock():
        run.set_status("running")
        with pytest.raises(ValueError, match="no such"):
            attempt(fails, cfg)
        assert run.state == "running"


def test_attempt_records_failures_but_not_interruptions(cfg):
    def interrupted(_):
        raise Interrupted

    def busy(_):
        raise RunBusy

    for task, error in ((interrupted, Interrupted), (busy, RunBusy)):
        with pytest.raises(error):
            attempt(task, cfg)
    assert not (store.run_folder(cfg)).exists()
    with pytest.raises(ValueError, match="no such thing"):
        attempt(fails, cfg)
    status = json.loads((store.run_folder(cfg) / "status.json").read_text())
    assert (status["state"], status["exception"]) == ("failed", "ValueError: no such thing")
    assert attempt(lambda cfg: cfg.seed, cfg) == 0


def test_what_a_constructor_refuses_is_told_without_a_traceback(cfg):
    def builds(cfg):
        return instantiate({"_target_": "fractions.Fraction", "numerator": "a half"})

    with pytest.raises(RunError, match=r"^Invalid literal for Fraction: 'a half'$"):
        attempt(builds, cfg)
    assert Run(store.run_folder(cfg)).status["exception"] == "ValueError: Invalid literal for Fraction: 'a half'"


def test_no_part_of_runs_or_sweeps_imports_torch():
    code = (
        "import sys, flowzoo.runs.config, flowzoo.runs.trained, sweeps.engine, sweeps.__main__;"
        "import flowzoo.train, flowzoo.evaluate, flowzoo.sample;"
        "sys.exit(sorted(m for m in sys.modules if m.partition('.')[0] in ('torch', 'lightning')) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
