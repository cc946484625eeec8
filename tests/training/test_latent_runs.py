"""Runs on latents: trained, gone on with, stacked, scored and sampled as runs on pixels are; latents are found once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.autoencoders import kept
from flowzoo.autoencoders.kl import save_kl
from flowzoo.autoencoders.kl_network import KLNetwork
from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pca import BlockPCA
from flowzoo.build import jobs_of, load, model_of, trained_job
from flowzoo.prompted import sample_prompts
from flowzoo.runs.files import Refused, RunError
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder, run_hash
from flowzoo.runs.layout import AUTOENCODER, DATA
from flowzoo.runs.store import Run
from flowzoo.stacks import run_stacks
from flowzoo.training.checkpoint import last_step
from flowzoo.training.lifecycle import score_trained

PCA = ["autoencoder=pca", "autoencoder.factor=4", "autoencoder.channels=6", "backbone.patch_size=2"]
SHORT = ["trainer.steps=2", "trainer.val_every=1", "trainer.checkpoint_every=1"]
SHORT += ["evaluation.weights=[ema]", "evaluation.settings=[{steps: 1, guidance: 1.0}]", "evaluation.samples=8"]
SHORT += ["evaluation.reference=8", "evaluation.batch_size=8"]
Compose = Callable[..., DictConfig]


@pytest.fixture
def tiny_kl(tmp_path: Path) -> list[str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = KLNetwork(3, 4, 4, (8, 8, 8), blocks=1)
    save_kl(network, tmp_path / "kl.safetensors", {})
    return ["autoencoder=kl", f"autoencoder.weights={tmp_path / 'kl.safetensors'}", "backbone.patch_size=2"]


@pytest.fixture
def tiny_diffusers(tmp_path: Path) -> list[str]:
    diffusers = pytest.importorskip("diffusers")
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    narrow = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4}
    diffusers.AutoencoderKL(**kinds, **narrow).save_pretrained(tmp_path / "vae")
    return ["autoencoder=diffusers", f"autoencoder.weights={tmp_path / 'vae'}", "backbone.patch_size=4"]


@pytest.fixture(params=["pca", "kl", "diffusers"])
def words(request: pytest.FixtureRequest) -> list[str]:
    """Of a run on latents of each kind."""
    return PCA if request.param == "pca" else request.getfixturevalue(f"tiny_{request.param}")


def last(cfg: DictConfig) -> dict[str, torch.Tensor]:
    state = torch.load(run_folder(cfg) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return dict(state)


def test_a_run_is_trained_scored_again_and_sampled(
    tiny: Compose, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny(*words, *SHORT)
    train.run(cfg)
    folder = run_folder(cfg)
    told = " ".join(capsys.readouterr().out.split())
    assert ("6 of the 48 principal components of 4 x 4 pixels" in told) == (words is PCA)
    score_trained(trained_job(tiny(*words, *SHORT, "evaluation.samples=9"), folder), "best")
    assert [int(r["n_samples"]) for r in Run(folder).rows()] == [8, 9]
    score_trained(trained_job(cfg, folder), "best")  # nothing is left to score: the latents are those of training
    assert len(Run(folder).rows()) == 2
    images = sample_prompts(load(folder), ["a red circle"], steps=1)
    assert (images.shape, images.dtype) == ((1, 3, 16, 16), torch.uint8)


def test_a_run_goes_on_with_the_latents_it_began_with(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny(*PCA, *SHORT, runs="whole")
    train.run(whole)
    halves = tiny(*PCA, *SHORT, runs="halves")
    interrupt_after_first_step(halves, monkeypatch)
    monkeypatch.setattr("flowzoo.build.find", None)  # whoever fitted or measured again would fail
    train.run(halves)
    one, other = last(whole), last(halves)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def interrupt_after_first_step(cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the run as a kill after its first checkpoint does."""
    with monkeypatch.context() as patch:
        from flowzoo.training import lifecycle

        fit = lifecycle.fit

        def first_step(stack, begin, until):
            fit(stack, begin, 1)
            raise ZeroDivisionError

        patch.setattr(lifecycle, "fit", first_step)
        with pytest.raises(ZeroDivisionError):
            train.run(cfg)
    assert last_step(Run(run_folder(cfg))) == 1


def test_latents_that_are_lost_or_altered_are_named(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny(*PCA, *SHORT)
    interrupt_after_first_step(cfg, monkeypatch)
    path = run_folder(cfg) / AUTOENCODER
    whole = path.read_bytes()
    autoencoder = load(path.parent, checkpoint="last").autoencoder.autoencoder
    statistics = kept.load(path, autoencoder)
    kept.save(path, autoencoder, type(statistics)(**{**vars(statistics), "mean": (0.0,) * 6}))
    for call in (lambda: jobs_of([cfg]), lambda: trained_job(cfg, path.parent)):
        with pytest.raises(RunError, match=r"autoencoder.safetensors tells other latents \(fingerprint"):
            call()
    path.unlink()
    for call in (lambda: jobs_of([cfg]), lambda: model_of(cfg, path.parent)):
        with pytest.raises(RunError, match=r"autoencoder\.safetensors is missing: the run has begun with the latents"):
            call()
    path.write_bytes(whole)
    jobs_of([cfg])


def test_runs_in_a_stack_are_what_they_are_alone(tiny_jobs: Callable[..., list[DictConfig]]) -> None:
    variants = ["variant=rf,edm_rf", *PCA, *SHORT, "trainer.precision=64-true"]
    for cfg in tiny_jobs(*variants, runs="alone"):
        train.run(cfg)
    together = tiny_jobs(*variants, "trainer=stacked", "stack.size=2", runs="together")
    assert run_stacks(together) == 0
    for one, other in zip(tiny_jobs(*variants, runs="alone"), map(alone, together), strict=True):
        a, b = last(one), last(other)
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == torch.float64
            torch.testing.assert_close(a[key], b[key], rtol=1e-9, atol=1e-12)
        files = (run_folder(cfg) / AUTOENCODER for cfg in (one, other))
        assert len({kept.load(file, BlockPCA(3, 4, 6)) for file in files}) == 1
    model = load(run_folder(together[0]))
    assert sample_prompts(model, ["a red circle"], steps=1).dtype == torch.uint8


def test_each_run_keeps_its_own_latents_in_a_stack(
    tiny_jobs: Callable[..., list[DictConfig]], capsys: pytest.CaptureFixture[str]
) -> None:
    cfgs = tiny_jobs("variant=rf,v_cos,eps_linear", *PCA, *SHORT, "trainer=stacked")
    for cfg, shift in zip(cfgs[:2], (0.0, 1e-3), strict=True):  # begun elsewhere, with other rounding
        (job,) = jobs_of([alone(cfg)])
        folder = run_folder(cfg)
        job.run.make(job.config, job.variant)
        assert job.statistics is not None
        statistics = type(job.statistics)(
            **{**vars(job.statistics), "mean": tuple(x + shift for x in job.statistics.mean)}
        )
        latents = type(job.model.autoencoder)(job.model.autoencoder.autoencoder, statistics.mean, statistics.std)
        kept.save(folder / AUTOENCODER, latents.autoencoder, statistics)
        assert job.train is not None
        about = {**job.about_data, "latents": latents.fingerprint, "fingerprint": job.train.fingerprint}
        (folder / DATA).write_text(json.dumps(about))
    before = [json.loads((run_folder(cfg) / DATA).read_text())["latents"] for cfg in cfgs[:2]]
    assert run_stacks(cfgs) == 0
    out = capsys.readouterr().out
    assert "2 variants in 1 stack" in out
    assert "1 variant in 1 stack" in out
    after = [json.loads((run_folder(cfg) / DATA).read_text())["latents"] for cfg in cfgs]
    assert after == [before[0], before[1], before[0]]


def test_rungs_stop_runs_on_latents(tiny_jobs: Callable[..., list[DictConfig]]) -> None:
    rungs = ["halving=asha", "halving.images=[8]", "halving.eta=2", "halving.samples=66", "halving.steps=1"]
    cfgs = tiny_jobs("variant=rf,v_cos", *PCA, *SHORT, *rungs, "evaluation.reference=70", "trainer=stacked")
    assert run_stacks(cfgs) == 0
    assert sorted(Run(run_folder(cfg)).state for cfg in cfgs) == ["done", "stopped"]


def test_what_the_backbone_sees_is_part_of_the_runs_name(tiny: Compose) -> None:
    base = run_hash(tiny(*PCA))
    assert run_hash(tiny(*PCA, "autoencoder.gain=1")) == base
    changed = ["gain=2", "spectrum_power=0.5", "channels=7", "factor=2"]
    assert len({base, *(run_hash(tiny(*PCA, f"autoencoder.{word}")) for word in changed)}) == 5


def test_weights_that_do_not_cut_the_images_are_refused(tiny: Compose, tiny_kl: list[str]) -> None:
    with pytest.raises(Refused, match=r"backbone\.patch_size=4: allowed is a divisor of 5, .*autoencoder\.factor=4"):
        jobs_of([tiny(*tiny_kl, "data.source.image_size=20", "backbone.patch_size=4")])
    cfg = tiny(*tiny_kl, "data.source.image_size=18", "backbone.patch_size=2")
    with pytest.raises(Refused, match=r"autoencoder\.factor=4: allowed is a divisor of 18"):
        jobs_of([cfg])
    assert not run_folder(cfg).exists()


def test_tokens_are_four_pixels_unless_the_config_says_more(tiny: Compose, tiny_kl: list[str]) -> None:
    """Also where the autoencoder's factor is known from its weights alone."""
    words = [word for word in tiny_kl if not word.startswith("backbone.patch_size")]
    sizes = {}
    for size in ("null", "2"):
        (job,) = jobs_of([tiny(*words, f"backbone.patch_size={size}")])
        state = job.model.backbone.state_dict()
        sizes[size] = next(x for name, x in state.items() if name.startswith("image.") and x.ndim > 1).shape[1]
    assert sizes == {"null": 4, "2": 4 * 2**2}  # numbers of a token of 4 channels


def test_latents_of_images_that_are_seen_again_are_computed_once(
    tiny: Compose, tiny_kl: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same weights in the end as where they are computed for each batch."""
    encode, counted = Latents.encode, []
    monkeypatch.setattr(Latents, "encode", lambda self, images: counted.append(len(images)) or encode(self, images))
    few = [
        *tiny_kl,
        *SHORT,
        "trainer.precision=64-true",
        "data.source.size=16",
        "metric=[clip]",
        "trainer.val_samples=4",
    ]
    states, counts = [], []
    for words in (["data.cache=device"], ["data.cache=none", "data.workers=0"]):
        counted.clear()
        cfg = tiny(*few, "trainer.steps=6", "trainer.val_samples=4", *words, runs=words[0])
        train.run(cfg)
        states.append(last(cfg))
        counts.append(sum(counted))
    assert counts == [16 + 1 + 4, 6 * 8 + 4]  # one whose size is asked for, and those of validation
    for name, x in states[0].items():
        torch.testing.assert_close(x, states[1][name], rtol=1e-9, atol=1e-11)


def test_what_an_autoencoder_refuses_is_refused_before_anything_is_written(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match=r"^autoencoder\.channels=99"):
        train.ready([tiny("autoencoder=pca", "autoencoder.channels=99", "backbone.patch_size=1")])
    assert not (tmp_path / "runs").exists()
