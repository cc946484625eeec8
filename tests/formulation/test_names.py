import itertools
import math
import random
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from flowzoo.formulation import declared
from flowzoo.formulation.check import check, check_solver
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.names import (
    LONGEST,
    TABLE,
    VARIANTS,
    family,
    folder_name,
    of_a_kind,
    parse,
    variant_name,
)
from flowzoo.formulation.part import MODE_S, MODE_S_MAX
from flowzoo.formulation.spelling import file_name
from flowzoo.runs import variants

CONF = Path(__file__).parents[2] / "conf"
CLASS = "flowzoo.formulation."


def part(name: str, **values: object) -> dict[str, object]:
    return {"_target_": CLASS + name, **values}


RF = {"schedule": part("schedule.RF"), "target": part("target.Velocity")}
UNIFORM = part("timestep.Uniform")


def edm(P_m: object = -1.2, P_s: object = 1.2, sigma_data: object = 0.5) -> dict[str, object]:
    return {"schedule": part("schedule.EDM", P_m=P_m, P_s=P_s), "target": part("target.F", sigma_data=sigma_data)}


def test_the_table_is_the_papers() -> None:
    assert len(TABLE) == 61
    families = [family(name) for name in TABLE]
    assert {f: families.count(f) for f in families} == {
        **dict.fromkeys(("eps/linear", "v/linear", "eps/cos", "v/cos", "rf", "rf/cosmap", "edm/rf", "edm/cos"), 1),
        **{"rf/mode": 8, "rf/lognorm": 30, "edm": 15},
    }
    modes = [name for name in TABLE if name.startswith("rf/mode")]
    assert modes == [f"rf/mode({s})" for s in ("-1.00", "-0.54", "-0.08", "0.38", "0.83", "1.00", "1.29", "1.75")]
    assert TABLE["rf/mode(0.83)"]["sampler"]["s"] == -1 + 2.75 * 4 / 6
    assert len({str(config) for config in TABLE.values()}) == 61


@pytest.mark.parametrize("name", TABLE)
def test_names_go_both_ways(name: str) -> None:
    config = TABLE[name]
    assert variant_name(config["path"], config["sampler"]) == name
    assert parse(name) == parse(file_name(name)) == config
    assert file_name(file_name(name)) == file_name(name)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", file_name(name))


def free_configs() -> list[dict[str, dict]]:
    rng = random.Random(0)
    values = [0.5, 0.83, 0.8333333333333333, 0.83333, -1 + 2.75 * 5 / 6, 1.29, 0.38, 0.375, 1e-5, 0.123456, 1.0]
    values += [rng.uniform(0.01, 1.7) for _ in range(20)]
    targets = [part(f"target.{t}") for t in ("Velocity", "Eps", "V", "X0")]
    targets += [part("target.F", sigma_data=sd) for sd in (0.5, 0.25, 1.0, 0.4812345, "data")]
    plain = [part(f"schedule.{s}") for s in ("RF", "Cosine", "LDMLinear", "DDPMLinear")]
    edms = [part("schedule.EDMRF"), part("schedule.EDMCosine")]
    edms += [part("schedule.EDM", P_m=m, P_s=s) for m, s in ((-1.2, 0.6), (-1.234, 1e-5), (0.0, 12345.678))]
    samplers = [part("timestep.CosMap"), *(part("timestep.Mode", s=s) for s in values)]
    samplers += [part("timestep.LogitNormal", m=-s, s=abs(s) + 0.1) for s in values]
    samplers += [part("timestep.Spectrum", eigenvalues=w) for w in ("data", 1.0, 1e-5)]
    pairs = [*itertools.product(plain, targets, [UNIFORM, *samplers]), *itertools.product(edms, targets, [UNIFORM])]
    configs = [{"path": {"schedule": s, "target": t}, "sampler": law} for s, t, law in pairs]
    shifts = [part("timestep.Uniform"), part("timestep.Mode", s=MODE_S[3]), part("timestep.Mode", s=0.83)]
    shifts = [
        {**law, "shift": alpha}
        for law in (*shifts, part("timestep.CosMap"), part("timestep.Spectrum", eigenvalues="data"))
        for alpha in (3.0, 1e-5, 0.123456)
    ]
    losses = [
        part(f"loss.{kind}", clip=clip) for kind in ("OnX0", "OnEps", "OnVelocity") for clip in (100.0, 0.25, 1e22)
    ]
    weightings = [part(f"weighting.{kind}", gamma=g) for kind in ("MinSNR", "SoftMinSNR") for g in (5.0, 1e-5, 2.345)]
    for path, law in itertools.product(
        ({"schedule": s, "target": part("target.F", sigma_data=0.5)} for s in plain), shifts
    ):
        configs.append({"path": path, "sampler": law})
        configs += [{"path": {**path, "loss": loss}, "sampler": law} for loss in losses]
        configs += [{"path": path, "sampler": law, "weighting": weighting} for weighting in weightings]
    for s in (*plain, *edms):
        configs += [
            {"path": {"schedule": s, "target": t, "loss": loss}, "sampler": UNIFORM}
            for t in targets
            for loss in losses
            if not declared.changes_nothing(loss, t)
        ]
    return configs


def test_free_names_are_one_to_one() -> None:
    seen: dict[str, dict] = {}
    for config in free_configs():
        name = variant_name(**config)
        assert re.fullmatch(r"(?:[^\s=]|(?:sigma_data|eigenvalues|shift|clip)=)+", name)
        assert re.fullmatch(r"[A-Za-z0-9.+_-]+", file_name(name))
        assert seen.setdefault(file_name(name), config) is config, name
        assert parse(name) == parse(file_name(name)) == config, name


@pytest.mark.parametrize(
    ("path", "sampler", "name", "file"),
    [
        (RF, part("timestep.Mode", s=0.83), "rf/mode(0.830)", "rf_mode_0.830"),
        (RF, part("timestep.Mode", s=0.8333), "rf/mode(0.8333)", "rf_mode_0.8333"),
        (RF, part("timestep.Mode", s=0.375), "rf/mode(0.38)", "rf_mode_0.38"),
        (RF, part("timestep.LogitNormal", m=0, s=1), "rf/lognorm(0.00,1.00)", "rf_lognorm_0.00_1.00"),
        (RF, part("timestep.LogitNormal", m=-0.0, s=0.125), "rf/lognorm(0.00,0.125)", "rf_lognorm_0.00_0.125"),
        (edm(sigma_data="data"), UNIFORM, "edm(-1.20,1.20,sigma_data=data)", "edm_-1.20_1.20_sd-data"),
        (RF, part("timestep.Spectrum", eigenvalues="data"), "rf/spectrum", "rf_spectrum"),
        (
            RF,
            part("timestep.Spectrum", eigenvalues="data", shift=3.0),
            "rf/spectrum(shift=3.00)",
            "rf_spectrum_shift-3.00",
        ),
        (
            {"schedule": part("schedule.EDMRF"), "target": part("target.F", sigma_data=1)},
            UNIFORM,
            "edm(sigma_data=1.00)/rf",
            "edm_sd-1.00_rf",
        ),
        (
            {"schedule": part("schedule.DDPMLinear"), "target": part("target.Eps")},
            part("timestep.LogitNormal", m=0.0, s=1.0),
            "eps/ddpm_linear/lognorm(0.00,1.00)",
            "eps_ddpm_linear_lognorm_0.00_1.00",
        ),
        (
            {"schedule": part("schedule.RF"), "target": part("target.X0")},
            part("timestep.Mode", s=0.5),
            "x0/rf/mode(0.50)",
            "x0_rf_mode_0.50",
        ),
        (
            {"schedule": {"_target_": "mine.Sine", "k": 2, "kind": "a b"}, "target": part("target.V")},
            {"_target_": "mine.Beta", "alpha": 0.5},
            "v/Sine(k=2.00,kind=a b)/Beta(alpha=0.50)",
            "v_Sine_k-2.00_kind-a_b_Beta_alpha-0.50",
        ),
    ],
)
def test_printed_names(path: dict, sampler: dict, name: str, file: str) -> None:
    assert variant_name(path, sampler) == name
    assert file_name(name) == file
    check(path, sampler)


def test_families_for_analysis() -> None:
    assert [
        family(n) for n in ("rf/lognorm(0.00,1.00)", "edm(-1.20,1.20,sigma_data=data)", "edm/rf", "v/cos", "rf")
    ] == [*("rf/lognorm", "edm", "edm/rf", "v/cos", "rf")]


@pytest.mark.parametrize(
    "name", ["rff", "", "edm", "edm(0.00,0.60)/rf", "edm_rf_rf", "x0(sigma_data=1.00)/rf", "rf/mode", "v"]
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a formulation; `python -m sweeps list sd3_61`"):
        parse(name)


@pytest.mark.parametrize(
    ("path", "sampler", "message"),
    [
        (RF, part("timestep.Mode", s=2.0), r"sampler\.s = 2\.0 .*1\.75"),
        (RF, part("timestep.Mode", s=-1.0001), r"sampler\.s = -1\.0001"),
        (RF, part("timestep.LogitNormal", m=0.0, s=0.0), r"sampler\.s"),
        (RF, part("timestep.LogitNormal", m="x", s=1.0), r"sampler\.m = 'x' is not a number"),
        (RF, part("timestep.LogitNormal", m=0.0), "takes: m, s"),
        (RF, part("timestep.Uniform", m=0.0), "takes: shift"),
        ({**RF, "loss": part("loss.OnTarget", clip=1.0)}, UNIFORM, "path.loss has the parameters clip; .* takes: none"),
        ({**RF, "loss": part("loss.OnX0", clip=0.0)}, UNIFORM, r"path\.loss\.clip = 0\.0"),
        ({**RF, "loss": part("loss.X0")}, UNIFORM, r"path\.loss\._target_ = .* does not exist; allowed: .*OnX0"),
        (RF, {}, "no _target_"),
        (RF, part("timestep.Lognormal", m=0.0, s=1.0), "does not exist; allowed: .*LogitNormal"),
        (edm(P_s=0), UNIFORM, r"path\.schedule\.P_s = 0"),
        (edm(P_m=float("nan")), UNIFORM, r"path\.schedule\.P_m"),
        (edm(sigma_data=-1), UNIFORM, "sigma_data = -1"),
        (edm(sigma_data="measured"), UNIFORM, "sigma_data = 'measured'"),
        (edm(), part("timestep.CosMap"), "edm takes the uniform sampler only, not cosmap"),
        (
            TABLE["edm/rf"]["path"],
            part("timestep.LogitNormal", m=0.0, s=1.0),
            r"edm_rf takes .* not lognorm\(0\.00,1\.00\)",
        ),
        (TABLE["edm/cos"]["path"], {"_target_": "mine.Beta"}, "edm_cos takes the uniform sampler only, not Beta"),
    ],
)
def test_bad_configs_are_refused(path: dict, sampler: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(path, sampler)


def test_exact_limits_are_accepted() -> None:
    for s in (-1, MODE_S_MAX):
        check(RF, part("timestep.Mode", s=s))


def solver(rule: str = "Recombine", grid: str = "Common", shift: object = 1.0) -> dict[str, object]:
    return {
        "rule": {"_target_": f"flowzoo.sampling.solver.{rule}"},
        "grid": {"_target_": f"flowzoo.sampling.grid.{grid}"},
        "shift": shift,
    }


@pytest.mark.parametrize("name", ["edm(-1.20,1.20)", "edm/rf", "edm/cos"])
def test_solvers_that_do_not_fit_the_path_are_refused(name: str) -> None:
    path = TABLE[name]["path"]
    with pytest.raises(ValueError, match="euler_t is not offered for edm"):
        check_solver(solver(rule="EulerT"), path)
    check_solver(solver(rule="Heun", grid="Karras"), path)
    check_solver(solver(rule="EulerT", grid="UniformT"), RF)
    if name.startswith("edm("):
        with pytest.raises(ValueError, match="uniform_t is not offered for edm"):
            check_solver(solver(grid="UniformT"), path)
    else:
        check_solver(solver(grid="UniformT"), path)


@pytest.mark.parametrize("shift", [0, -1.0, float("nan"), "3"])
def test_shift_out_of_range_is_refused(shift: object) -> None:
    with pytest.raises(ValueError, match=r"solver\.shift = "):
        check_solver(solver(shift=shift), RF)


@pytest.fixture
def composed(tmp_path: Path):
    (tmp_path / "main.yaml").write_text(
        "defaults: [_self_, path: rf, sampler: uniform, weighting: none, variant: null, solver: recombine]\n"
        "sigma_data: 0.5\n"
        f"hydra: {{searchpath: ['file://{CONF}']}}\n"
    )
    variants.register()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield lambda *overrides: compose("main", list(overrides))


def build(cfg: DictConfig) -> Formulation:
    return Formulation(instantiate(cfg.path.schedule), instantiate(cfg.path.target), instantiate(cfg.sampler))


def test_every_variant_is_an_option(composed) -> None:
    loader = GlobalHydra.instance().config_loader()
    override = OverridesParser.create(config_loader=loader).parse_overrides(["variant=glob(*)"])[0]
    assert sorted(override.sweep_string_iterator()) == sorted(map(file_name, VARIANTS))
    for name, config in VARIANTS.items():
        cfg = composed(f"variant={file_name(name)}")
        assert variant_name(cfg.path, cfg.sampler) == name
        simple = declared.simplest(OmegaConf.to_container(cfg, resolve=True))
        assert {key: simple[key] for key in ("path", "sampler", "weighting") if key in simple} == config
        if cfg.sampler.get("eigenvalues") != "data":
            build(cfg)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "rf"),
        ("path=edm", "edm(-1.20,1.20)"),
        ("path=edm path.schedule.P_m=0 path.schedule.P_s=0.6", "edm(0.00,0.60)"),
        ("path=edm sigma_data=data", "edm(-1.20,1.20,sigma_data=data)"),
        ("path=edm_cos", "edm/cos"),
        ("sampler=lognorm sampler.m=-0.5", "rf/lognorm(-0.50,1.00)"),
        ("path/schedule=cosine path/target=v", "v/cos"),
        ("path=eps_linear path/target=x0 sampler=cosmap", "x0/linear/cosmap"),
        ("path/target=F sampler=mode sampler.s=1", "F/rf/mode(1.00)"),
        ("path/schedule=ddpm_linear path/target=eps", "eps/ddpm_linear"),
        ("solver=heun solver/grid=karras solver.shift=3", "rf"),
        ("path/loss=x0", "rf/loss_x0"),
        ("path/loss=velocity", "rf"),
        ("path=eps_cos path/loss=eps path.loss.clip=2", "eps/cos"),
        ("path/target=eps path/loss=x0 path.loss.clip=100", "eps/rf/loss_x0(clip=100.00)"),
        ("weighting=min_snr", "rf/min_snr(5.00)"),
        (
            "weighting=soft_min_snr weighting.gamma=4 sampler=mode sampler.shift=3",
            "rf/mode(1.290,shift=3.00)/soft_min_snr(4.00)",
        ),
        ("variant=rf_mode_0.83 weighting=min_snr", "rf/mode(0.83)/min_snr(5.00)"),
        ("sampler.shift=3", "rf/uniform(shift=3.00)"),
        ("sampler=mode sampler.s=0 sampler.shift=3", "rf/uniform(shift=3.00)"),
        ("sampler=lognorm sampler.shift=1", "rf/lognorm(0.00,1.00)"),
        ("sampler=lognorm sampler.shift=3", f"rf/lognorm({math.log(3)!r},1.00)"),
    ],
)
def test_what_users_type(composed, overrides: str, name: str) -> None:
    cfg = composed(*overrides.split())
    check(cfg.path, cfg.sampler, cfg.weighting)
    check_solver(cfg.solver, cfg.path)
    assert variant_name(cfg.path, cfg.sampler, cfg.weighting) == name
    if cfg.sigma_data != "data":
        build(cfg)


@pytest.mark.parametrize("rule", ["recombine", "heun", "euler_t"])
@pytest.mark.parametrize("grid", ["common", "path", "uniform_t", "karras"])
def test_solver_options_are_named_as_their_objects(composed, rule: str, grid: str) -> None:
    made = instantiate(composed(f"solver={rule}", f"solver/grid={grid}").solver)
    assert (made.name, made.grid.name, made.shift) == (rule, grid, 1.0)


def test_options_of_losses_and_weightings_are_the_parts_words(composed) -> None:
    for group, known in (("path/loss", declared.LOSSES), ("weighting", declared.WEIGHTINGS)):
        options = {file.stem for file in (CONF / group).glob("*.yaml")}
        assert options == {known_part.word for known_part in known.values()}
        for option in options:
            cfg = composed(f"{group}={option}")
            assert declared.word_of((cfg.path.loss if group == "path/loss" else cfg.weighting)._target_) == option


def test_options_of_paths_and_samplers_are_the_parts_words(composed) -> None:
    for option in (CONF / "path").glob("*.yaml"):
        cfg = composed(f"path={option.stem}")
        assert file_name(family(variant_name(cfg.path, cfg.sampler))) == option.stem
    for option in (CONF / "sampler").glob("*.yaml"):
        assert declared.word_of(composed(f"sampler={option.stem}").sampler._target_) == option.stem


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("rf_lognorm_2.5_1.4", "rf/lognorm(2.50,1.40)"),
        ("edm(-1.20,1.20,sigma_data=data)", "edm(-1.20,1.20,sigma_data=data)"),
        ("rf/lognorm(0.00,1.00)", "rf/lognorm(0.00,1.00)"),
        ("x0/rf", None),
        ("rf/mode(9.00)", None),
        ("rf/lognorm(1.00)", None),
    ],
)
def test_kinds_of_the_paper_take_other_numbers(name: str, printed: str | None) -> None:
    assert of_a_kind(name) == printed


def test_names_of_folders_stay_short_where_parts_come_from_outside() -> None:
    path = {"schedule": {"_target_": "mine.ShiftedCosine", "shift": 0.5}, "target": TABLE["v/cos"]["path"]["target"]}
    law = {"_target_": "mine.LogitLaplace", "m": 0.0, "s": 0.5}
    assert folder_name(path, law) == "v_ShiftedCosine_shift-0.50_LogitLaplace_m-0.00_s-0.50"
    many = {**law, **{f"parameter_{i}": 0.125 for i in range(20)}}
    assert folder_name(path, many) == "v_ShiftedCosine_LogitLaplace"
    assert "parameter_19=0.125" in variant_name(path, many)
    assert len(folder_name(path, {**many, "_target_": "mine." + 99 * "L"})) == LONGEST
    for name, config in TABLE.items():
        assert folder_name(**config) == file_name(name)
