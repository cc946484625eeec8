import pytest
import torch
from ideal import Q, ab, build, exact_start
from torch import Tensor
from torch.testing import assert_close

from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Coefficients
from flowzoo.formulation.names import TABLE
from flowzoo.sampling.grid import Karras
from flowzoo.sampling.guidance import guided
from flowzoo.sampling.solver import Heun

B, C = 3, 4
GEN = torch.Generator().manual_seed(0)
Z = torch.randn(B, C, 2, 2, generator=GEN)
TEXT = Text(
    (torch.randn(B, 5, C, generator=GEN), torch.randn(B, 2, C, generator=GEN)), (torch.randn(B, C, generator=GEN),) * 2
)
NULL = Text(tuple(torch.zeros_like(x) for x in TEXT.tokens), tuple(torch.zeros_like(x) for x in TEXT.pooled))


class Backbone:
    """Depends on every input, sample by sample and channel by channel; remembers the batch sizes."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        assert label.dtype == torch.float32
        assert label.shape == z.shape[:1]
        self.calls.append(len(z))
        summary = sum(x.sum(1) for x in text.tokens) + sum(text.pooled)
        return torch.sin(z) + label[:, None, None, None] / 1000 + summary[..., None, None]


def by_hand(text: Text) -> Tensor:
    c = node()
    return Backbone()(c.c_in.float() * Z, c.label.float().expand(B), text)


def node() -> Coefficients:
    return build(TABLE["edm(-1.20,1.20)"]).at_sigma(2.0).to(torch.float32)


@pytest.mark.parametrize(("scale", "text"), [(1, TEXT), (1.0, TEXT), (0.0, NULL)])
def test_one_and_zero_are_a_single_pass_on_all_channels(scale: float, text: Text) -> None:
    backbone = Backbone()
    assert_close(guided(backbone, TEXT, NULL, scale)(Z, node()), by_hand(text), rtol=0, atol=0)
    assert backbone.calls == [B]


@pytest.mark.parametrize("scale", [2.5, 5.0, -1.0])
def test_any_other_scale_is_one_forward_of_twice_the_batch(scale: float) -> None:
    backbone = Backbone()
    cond, uncond = by_hand(TEXT), by_hand(NULL)
    assert_close(guided(backbone, TEXT, NULL, scale)(Z, node()), uncond + scale * (cond - uncond))
    assert backbone.calls == [2 * B]


@pytest.mark.parametrize("scale", [2.5, -1.0])
def test_texts_of_other_lengths_go_one_after_the_other(scale: float) -> None:
    backbone, null = Backbone(), NULL.merged()
    cond, uncond = by_hand(TEXT), by_hand(NULL)
    assert_close(guided(backbone, TEXT, null, scale)(Z, node()), uncond + scale * (cond - uncond))
    assert backbone.calls == [B, B]


def test_records_with_one_value_a_sample() -> None:
    c = build(TABLE["rf"]).at_t(torch.tensor([0.2, 0.5, 0.9])).expand_to(Z).to(torch.float32)
    got = guided(Backbone(), TEXT, NULL, 3.0)(Z, c)
    for i, t in enumerate((0.2, 0.5, 0.9)):
        single = guided(Backbone(), TEXT, NULL, 3.0)(Z, build(TABLE["rf"]).at_t(t).to(torch.float32))
        assert_close(got[i], single[i])


def test_no_null_is_needed_without_guidance() -> None:
    assert_close(guided(Backbone(), TEXT, None, 1.0)(Z, node()), by_hand(TEXT))
    with pytest.raises(ValueError, match=r"guidance scale 2\.0 needs the null text"):
        guided(Backbone(), TEXT, None, 2.0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("sigma", [0.5, 2.0, torch.inf])
def test_an_interval_of_all_levels_is_none_and_an_empty_one_is_no_guidance(scale: float, sigma: float) -> None:
    c = build(TABLE["rf"]).at_sigma(sigma).to(torch.float32)
    at = lambda scale, interval: guided(Backbone(), TEXT, NULL, scale, interval=interval)(Z, c)  # noqa: E731
    assert_close(at(scale, (0.0, torch.inf)), at(scale, None), rtol=0, atol=0)
    for empty in ((0.0, 0.0), (2.0, 2.0), (3.0, 4.0)):
        assert_close(at(scale, empty), at(1.0, None), rtol=0, atol=0)


@pytest.mark.parametrize(("interval", "inside"), [((1.0, 2.0), True), ((2.0, 3.0), False), ((1.9, 2.1), True)])
def test_an_interval_is_open_below_and_closed_above(interval: tuple[float, float], inside: bool) -> None:
    backbone = Backbone()
    got = guided(backbone, TEXT, NULL, 2.5, interval=interval)(Z, node())  # sigma = 2
    assert_close(got, guided(Backbone(), TEXT, NULL, 2.5 if inside else 1.0)(Z, node()), rtol=0, atol=0)
    assert backbone.calls == [2 * B if inside else B]


@pytest.mark.parametrize("away", [TEXT.rows(torch.tensor([1, 2, 0])), NULL])
def test_guidance_leads_away_from_whatever_text_is_given(away: Text) -> None:
    cond = by_hand(TEXT)
    assert_close(guided(Backbone(), TEXT, away, 1.0)(Z, node()), cond, rtol=0, atol=0)
    assert_close(guided(Backbone(), TEXT, away, 0.0)(Z, node()), by_hand(away), rtol=0, atol=0)
    assert_close(guided(Backbone(), TEXT, away, 3.0)(Z, node()), by_hand(away) + 3.0 * (cond - by_hand(away)))
    assert_close(guided(Backbone(), TEXT, TEXT, 3.0)(Z, node()), cond)  # from itself it leads nowhere


def test_the_dtype_of_the_state_is_kept() -> None:
    net = guided(lambda z, label, text: z.bfloat16(), TEXT, NULL, 2.0)
    assert net(Z, node()).dtype == torch.float32


def test_a_backbone_that_knows_the_level_by_its_label_alone_samples_images() -> None:
    """c_in and label are all that a network needs: EDM's ideal one of N(1.5, 0.7^2), fed by `guided` in float32."""

    def backbone(x: Tensor, label: Tensor, text: Text) -> Tensor:
        sigma = (0.002 * torch.exp(label / 1000 * torch.log(torch.tensor(80 / 0.002))))[:, None, None, None]
        z = x * torch.sqrt(sigma**2 + 0.25)
        x0 = (1.5 * sigma**2 + 0.49 * z) / (0.49 + sigma**2)
        return (x0 - 0.25 / (sigma**2 + 0.25) * z) / (0.5 * sigma / torch.sqrt(sigma**2 + 0.25))

    form = build(TABLE["edm/cos"])
    levels = Karras().levels(form, 128)
    _, b = ab("ve", levels[0])
    eps = exact_start(form, levels[0])[:99].float().reshape(99, 1, 1, 1)
    text = Text((torch.zeros(99, 1, 1),), (torch.zeros(99, 1),))
    x0 = Heun().sample(guided(backbone, text, text, 5.0), form, eps, levels).x0.flatten()
    assert b == 80
    assert_close(x0.double(), 1.5 + 0.7 * torch.special.ndtri(Q), atol=5e-3, rtol=0)
