"""Add your own: the examples, copied to a folder outside the package, are found, named, refused or trained."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.formulation.schedule import Cosine
from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.store import Run
from flowzoo.train import run
from flowzoo.training.checkpoint import read_weights

EXAMPLE = Path(__file__).parents[1] / "examples" / "add_your_own"
MODULES = [path.stem for path in EXAMPLE.glob("*.py")]
TINY = [
    "experiment=demo",
    "trainer.accelerator=cpu",
    "trainer.steps=3",
    "trainer.val_samples=8",
    "trainer.log_every=1",
    "data.source.size=128",
    "data.source.image_size=16",
    "evaluation.samples=66",
    "evaluation.reference=70",
    "evaluation.weights=[ema]",
    "evaluation.settings=[{steps: 2, guidance: 2.0}]",
]
ALL = ["path/schedule=shifted_cosine", "path/target=v", "sampler=laplace", "backbone=film"]
# Every kind of part but those that exclude each other, as a loss space and a weighting do.
EVERY = [
    *("path/schedule=shifted_cosine", "path/target=to_data", "sampler=laplace", "weighting=sigmoid", "backbone=film"),
    *("data=stripes", "data.source.length=100", "text=letters", "autoencoder=folded", "extractor=thumbnail"),
    *("metric=[kid,fid]", "optimizer=signs", "optimizer/rate=plateau", "ema=tail", "ema.first=2", "solver=thresholded"),
    *("solver/grid=even_snr", "callbacks=[watch]", "callbacks.watch.every=2", "logger=lines"),
    *("backbone.depth=1", "backbone.width=32", "backbone.heads=1"),
    *(
        "trainer.accelerator=cpu",
        "trainer.steps=4",
        "trainer.val_every=2",
        "trainer.val_samples=8",
        "trainer.batch_size=8",
    ),
    *("trainer.log_every=1", "trainer.checkpoint_every=2", "trainer.precision=64-true", "evaluation=quick"),
    *("evaluation.samples=66", "evaluation.reference=70", "evaluation.weights=[ema]"),
    "evaluation.settings=[{steps: 3, guidance: 2.0}]",
]
NAME = "v/ShiftedCosine(shift=0.50)/LogitLaplace(m=0.00,s=0.50)"

Typed = Callable[..., tuple[int, list[DictConfig]]]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder of modules and configs that Python finds, and an empty working directory."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for module in (*MODULES, "bad"):
        sys.modules.pop(module, None)


@pytest.fixture
def typed(monkeypatch) -> Typed:
    """Types a training command: its exit code, and the configs that reached the task."""

    def command(*words: str, task: Callable[[DictConfig], None] | None = None) -> tuple[int, list[DictConfig]]:
        seen: list[DictConfig] = []

        def note(cfg: DictConfig) -> None:
            seen.append(cfg)
            if task is not None:
                task(cfg)

        monkeypatch.setattr(sys, "argv", ["train", *words])
        monkeypatch.setattr(train, "run", note)
        monkeypatch.setattr(train, "ready", lambda cfgs: None)
        with pytest.raises(SystemExit) as exit:
            train.main()
        return exit.value.code, seen

    return command


@pytest.mark.parametrize("found", ["--config-dir={}/conf", "hydra.searchpath=[file://{}/conf]"])
def test_each_part_is_found_and_named(outside, typed, found):
    where = found.format(outside)
    code, seen = typed("-m", where, *ALL[:3], "backbone=film,mmdit", "path.schedule.shift=0.25,0.5")
    assert code == 0
    assert [run_variant(cfg) for cfg in seen] == 2 * [NAME.replace("0.50)/", "0.25)/"), NAME]
    assert len({run_folder(cfg) for cfg in seen}) == 4
    code, seen = typed(where, "path=rf", "sampler=laplace")
    assert [run_variant(cfg) for cfg in seen] == ["rf/LogitLaplace(m=0.00,s=0.50)"]
    assert run_folder(seen[0]).name.startswith("rf_LogitLaplace_m-0.00_s-0.50-s0-")


def test_all_together_train_and_are_scored(outside, typed):
    code, (cfg,) = typed("--config-dir", f"{outside}/conf", *TINY, *ALL, task=run)
    assert code == 0
    trained = Run(run_folder(cfg))
    assert trained.status["state"] == "done"
    assert trained.status["step"] == 3
    (row,) = trained.rows()
    assert (row["variant"], row["backbone"]) == (NAME, "film-d4-w96")
    assert torch.isfinite(torch.tensor([row["fid"], row["clip"]])).all()


def test_every_kind_of_part_trains_alone_and_in_a_stack(outside, capsys):
    with config_loader(f"{outside}/conf") as loader:
        several = [*EVERY, "sampler=laplace,lognorm", "optimizer.lr=1e-3,1e-2"]
        stack = [alone(cfg) for cfg in compose_jobs(loader, "train", [*several, "trainer=stacked"], multirun=True)]
        each = [alone(cfg) for cfg in compose_jobs(loader, "train", [*several, "sweep=each"], multirun=True)]
    check_jobs(stack)
    run(*stack)
    assert "lengths of weights" in capsys.readouterr().out
    for cfg in each:
        run(cfg)
    names = [run_folder(cfg).name for cfg in stack]
    assert names == [run_folder(cfg).name for cfg in each]
    assert names[0].startswith("ToData_ShiftedCosine_LogitLaplace_Sigmoid-s0-")
    for one, other in zip(stack, each, strict=True):
        runs = [Run(run_folder(cfg)) for cfg in (one, other)]
        (a,), (b,) = (trained.rows() for trained in runs)
        assert a["rule"] == "thresholded"
        assert a["kid"] == pytest.approx(b["kid"], rel=1e-6)
        assert a["fid"] == pytest.approx(b["fid"], rel=1e-6)
        weights = [read_weights(trained.path / "checkpoints" / "last.ckpt", "ema")[0] for trained in runs]
        torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-10)
        assert (runs[0].path / "lines.txt").read_text().startswith("step=1 train_loss=")


def test_a_loss_space_and_an_optimiser_of_torch(outside, typed):
    words = ["path/loss=on_score", "optimizer=radam", "autoencoder=pixels", "metric=[fid]"]
    code, (cfg,) = typed("--config-dir", f"{outside}/conf", *TINY, "path=rf", *words, task=run)
    assert code == 0
    assert Run(run_folder(cfg)).state == "done"
    assert run_folder(cfg).name.startswith("rf_loss_OnScore_clip-100.00-s0-")


# What is typed beside the examples, and what the message must name.
BAD = [
    (["path/schedule=shifted_cosine", "path.schedule.shift=0"], ["ShiftedCosine's shift=0", "greater than 0"]),
    (["-m", "sampler=laplace", "sampler.s=0.5,-1"], ["LogitLaplace's s=-1"]),
    (["sampler=laplace", "+sampler.width=1"], ["sampler.width: laplace.LogitLaplace", "m, s"]),
    (["sampler=laplace", "~sampler.s"], ["LogitLaplace", "sampler.s is missing"]),
    (["path=edm", "sampler=laplace"], ["edm", "uniform", "LogitLaplace"]),
    (["backbone=film", "+backbone.kernel=5"], ["backbone.kernel: film.FiLM", "heads"]),
    (["backbone=film", "backbone.depth=0"], ["backbone.depth=0"]),
    (["backbone=film", "backbone._target_=film.Film"], ["film.Film", "cannot be imported"]),
    (["path/schedule=shifted_cosine", "path.schedule._target_=shifted_sine.X"], ["No module named 'shifted_sine'"]),
    (["path/schedule=shifted_cosine", "path/target=F", "sigma_data=-1"], ["sigma_data"]),
    (["path/schedule=shifted"], ["path/schedule/shifted", "shifted_cosine"]),
    (["path/loss=on_score", "path.loss.clip=0"], ["path.loss", "clip=0"]),
    (["optimizer=radam", "trainer=stacked"], ["torch.optim.RAdam", "trainer=solo"]),
    (["experiment=demo", "data=stripes"], ["data.source.image_size", "~data.source.image_size leaves it out"]),
    (["solver=thresholded", "solver.rule.bound=0"], ["solver.rule: thresholded.Thresholded", "bound=0"]),
    (["solver/grid=even_snr", "solver.grid.low=90"], ["solver.grid: even_snr.EvenSNR", "low=90"]),
    (["optimizer/rate=plateau", "optimizer.rate.share=0"], ["optimizer.rate: plateau.Plateau", "share=0"]),
    (["autoencoder=folded", "autoencoder.factor=0"], ["factor=0"]),
    (
        ["extractor=thumbnail", "extractor._target_=letters.Letters"],
        ["lacks identity, quality, images, text", "FeatureExtractor"],
    ),
    (
        ["metric=[fid]", "metric.fid._target_=letters.Letters"],
        ["metric.fid", "columns, prompts, identity, quality, statistics"],
    ),
    (
        ["text=letters", "text.encoders.letters._target_=tail.Tail", "+text.encoders.letters.first=1"],
        ["lacks length, dim, pooled_dim, fingerprint, encode, to"],
    ),
    (["autoencoder=folded", "autoencoder._target_=bad.Ae", "~autoencoder.factor"], ["lacks fingerprint, decode, to"]),
    (["backbone=film", "backbone._target_=bad.Net"], ["its output for z has shape [2, 1]", "allowed is [2, "]),
    (["logger=lines", "logger._target_=bad.Net"], ["logger: bad.Net", "derived from lightning.pytorch.loggers.Logger"]),
    (["solver=thresholded", "solver.rule._target_=bad.Rule"], ["solver.rule: bad.Rule", "lacks name, order, step"]),
    (["solver=thresholded", "solver.rule._target_=bad.Twice"], ["evaluations(2) is 4", "call the network 2 times"]),
]
BAD_PARTS = """
import thresholded
import torch
class Ae:
    def __init__(self, image_channels):
        self.image_channels, self.channels, self.factor = image_channels, 1, 1
    def encode(self, images): ...
class Net(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
    def forward(self, z, label, text):
        return label[:, None]
class Rule:
    def __init__(self, bound): ...
    def evaluations(self, steps): ...
    def last_step(self, *given): ...
    def sample(self, *given): ...
class Twice(thresholded.Thresholded):
    def evaluations(self, steps):
        return 2 * steps
"""


@pytest.mark.parametrize(("words", "named"), BAD, ids=lambda x: " ".join(x))
def test_nonsense_is_refused_before_it_starts(outside, typed, capsys, words, named):
    (outside / "bad.py").write_text(BAD_PARTS)
    code, seen = typed(f"--config-dir={outside}/conf", *words)
    message = capsys.readouterr().err
    assert (code, seen) == (2, [])
    assert message.count("\n") == 1
    for word in named:
        assert word in message
    assert list(Path.cwd().iterdir()) == []


def test_a_law_and_a_solver_that_do_not_fit_are_refused(outside, typed, capsys):
    path = outside / "shifted_cosine.py"
    path.write_text(path.read_text() + "\n    fixed_law = True\n    euler_t = False\n    uniform_t = False\n")
    schedule = [f"--config-dir={outside}/conf", "path/schedule=shifted_cosine", "path/target=v"]
    assert typed(*schedule)[0] == 0
    for words in (["sampler=lognorm"], ["solver=euler_t"], ["solver/grid=uniform_t"]):
        assert typed(*schedule, *words)[0] == 2
        assert "ShiftedCosine" in capsys.readouterr().err


# What every schedule, sampler and backbone of one's own should satisfy.


@pytest.mark.parametrize("shift", [0.25, 1.0, 4.0])
def test_the_schedule_keeps_the_laws(outside, shift):
    from shifted_cosine import ShiftedCosine

    schedule = ShiftedCosine(shift)
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64, requires_grad=True)
    s = schedule.at_t(t)
    for value, slope in ((s.a, s.da), (s.b, s.db)):
        (auto,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        torch.testing.assert_close(slope, auto)
    torch.testing.assert_close(s.a**2 + s.b**2, torch.ones_like(t))
    for one, other in zip(schedule.at_sigma(s.sigma), s, strict=True):
        torch.testing.assert_close(one, other)
    ends = schedule.at_sigma(torch.tensor([0.0, torch.inf], dtype=torch.float64))
    assert (ends.t.tolist(), ends.a.tolist(), ends.b.tolist()) == ([0, 1], [1, 0], [0, 1])
    if shift == 1:
        torch.testing.assert_close(tuple(s), tuple(Cosine().at_t(t)))


@pytest.mark.parametrize(("m", "s"), [(0.0, 0.5), (-1.0, 1.5)])
def test_the_samplers_density_is_that_of_its_quantiles(outside, m, s):
    from laplace import LogitLaplace

    law = LogitLaplace(m, s)
    u = torch.linspace(0.005, 0.995, 100, dtype=torch.float64, requires_grad=True)
    t = law.quantile(u)
    (slope,) = torch.autograd.grad(t.sum(), u)
    assert (slope > 0).all()
    torch.testing.assert_close(law.density(t) * slope, torch.ones_like(u))


def test_the_backbone_keeps_the_interface(outside):
    from film import FiLM

    from flowzoo.encoders.text import Text, TextSpec

    spec = TextSpec(lengths=(3, 2), dims=(5, 4), pooled=(6, 0))
    net = FiLM(channels=3, size=(8, 8), text=spec, patch_size=2, depth=2, width=8, heads=2)
    text = Text((torch.randn(7, 3, 5), torch.randn(7, 2, 4)), (torch.randn(7, 6), torch.zeros(7, 0)))
    z = torch.randn(7, 3, 8, 12)
    out = net(z, torch.linspace(0, 1000, 7), text)
    assert out.shape == z.shape
    assert (out == 0).all()  # until it is trained
    with pytest.raises(ValueError, match="patch_size=3"):
        FiLM(channels=3, size=(8, 8), text=spec, patch_size=3, depth=1, width=8, heads=1)


def test_a_rule_that_cuts_nothing_is_recombine_and_a_grid_is_even(outside):
    from even_snr import EvenSNR
    from thresholded import Thresholded

    from flowzoo.formulation.named import formulation
    from flowzoo.sampling.solver import Recombine, Solver

    path, eps = formulation("v/cos"), torch.randn(5, 3, dtype=torch.float64)
    own, ours = (Solver(rule, EvenSNR()).sample(lambda z, c: z.tanh(), path, eps, 7).x0
                 for rule in (Thresholded(1e9), Recombine()))  # fmt: skip
    torch.testing.assert_close(own, ours, rtol=1e-10, atol=1e-10)
    assert Solver(Thresholded(0.5), EvenSNR()).sample(lambda z, c: 9 * z, path, eps, 7).x0.abs().max() <= 0.5
    falls = EvenSNR(high=80, low=0.01).levels(path, 9)[:-1].log().diff()
    torch.testing.assert_close(falls, falls[:1].expand(8))


def test_the_kernel_distance_is_that_of_all_pairs(outside):
    from kid import squared_mmd

    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64) + 1
    k = lambda a, b: float((a @ b / 4 + 1) ** 3)  # noqa: E731
    within = [
        sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert squared_mmd(x, y) == pytest.approx(sum(within) - 2 * across)


def test_the_autoencoder_loses_nothing_and_no_image_is_in_both_splits(outside):
    from folded import Folded
    from stripes import Stripes

    train, val = Stripes("train"), Stripes("val")
    images = torch.from_numpy(train.images(range(8)))
    assert torch.equal(Folded(3, factor=4).decode(Folded(3, factor=4).encode(images)), images)
    assert not any(torch.equal(one, other) for one in images for other in torch.from_numpy(val.images(range(8))))
