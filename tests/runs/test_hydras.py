"""The one module that knows Hydra's private names: what it promises holds with the Hydra that is installed."""

import logging
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigStore
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode

from flowzoo.paths import conf
from flowzoo.runs import hydras, variants
from flowzoo.runs.hydras import arguments, combinations, is_question, locate, opened, repository_of
from flowzoo.runs.parse import parse

ROOT = Path(__file__).parents[2]


def test_no_other_module_knows_private_names() -> None:
    files = [path for name in ("flowzoo", "sweeps", "analysis", "examples") for path in (ROOT / name).rglob("*.py")]
    found = {path.name for path in files if re.search(r"hydra\._|hydra\S* import _", path.read_text())}
    assert found == {"hydras.py"}


def test_a_command_is_read_as_hydra_reads_it() -> None:
    args = arguments(["-m", "--config-dir", "own", "path=rf,edm", "seed=1"])
    assert (args.multirun, args.config_dir, args.overrides) == (True, "own", ["path=rf,edm", "seed=1"])
    assert not is_question(args)
    for word in ("--help", "--hydra-help", "--info", "--shell-completion"):
        assert is_question(arguments([word]))


def test_jobs_come_in_the_order_of_the_words() -> None:
    assert combinations(parse(["seed=0,1", "path=rf", "sampler.m=-1,1", "seed=2,3"])) == [
        ["seed=2", "path=rf", "sampler.m=-1"],
        ["seed=2", "path=rf", "sampler.m=1"],
        ["seed=3", "path=rf", "sampler.m=-1"],
        ["seed=3", "path=rf", "sampler.m=1"],
    ]


def test_what_cannot_be_located_is_raised_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert locate("pathlib.Path") is Path
    with caplog.at_level(logging.DEBUG), pytest.raises(ImportError, match="nowhere"):
        locate("nowhere.Nothing")
    assert caplog.records == []


def test_a_file_is_read_once_for_all_jobs_and_again_where_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    load = hydras._load

    def counting(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
        read[config_path] += 1
        return load(repository, config_path)

    monkeypatch.setattr(hydras, "_load", counting)
    shutil.copytree(conf(), tmp_path / "conf")
    for _ in range(2):
        with opened(tmp_path / "conf") as loader:
            jobs = [loader.load_configuration("train", [f"seed={i}"], RunMode.RUN) for i in range(3)]
        assert [cfg.seed for cfg in jobs] == [0, 1, 2]
        assert set(read.values()) == {1}
    (tmp_path / "conf" / "sampler" / "uniform.yaml").write_text("of: mine\n")
    with opened(tmp_path / "conf") as loader:
        assert loader.load_configuration("train", ["sampler=uniform"], RunMode.RUN).sampler == {"of": "mine"}
    assert sum(read.values()) == len(read) + 1


def test_the_name_of_an_option_may_choose_another(tmp_path: Path) -> None:
    for name in ("data/a", "data/b", "clip/a", "clip/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(f"is: {name}\n")
    (tmp_path / "own.yaml").write_text("defaults: [{data: a}, {clip: '${data}'}, _self_]\n")
    with opened(tmp_path) as loader:
        assert loader.load_configuration("own", ["data=b"], RunMode.RUN).clip == {"is": "clip/b"}


def test_jobs_do_not_share_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("a: {b: 1}\n")
    with opened(tmp_path) as loader:
        loader.load_configuration("own", [], RunMode.RUN).a.b = 2
        assert loader.load_configuration("own", [], RunMode.RUN).a.b == 1
        result = repository_of(loader).load_config("own")
        assert result is not None
        result.config.a.b = 3
        assert loader.load_configuration("own", [], RunMode.RUN).a.b == 1


def test_ones_own_options_are_found_beside_ours(tmp_path: Path) -> None:
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "own.yaml").write_text("of: mine\n")
    (tmp_path / "sampler" / "mode.yaml").write_text("of: mine\n")
    with opened(conf(), tmp_path) as loader:
        assert loader.load_configuration("train", ["sampler=own"], RunMode.RUN).sampler == {"of": "mine"}
        assert "s" in loader.load_configuration("train", ["sampler=mode"], RunMode.RUN).sampler


def test_the_store_is_not_copied_and_its_nodes_are() -> None:
    variants.register()
    with opened(conf()) as loader:
        first = loader.load_configuration("train", ["variant=edm_rf"], RunMode.RUN)
        first.path.schedule = None
    assert ConfigStore.instance().load("variant/edm_rf.yaml").node.path.schedule is not None
