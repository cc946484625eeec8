import pytest
import torch
from hydra.errors import InstantiationException


def test_three_weight_sets_that_agree_are_two(make, inputs, randomise):
    """mmdit3 whose text streams have equal weights is mmdit: the streams differ in nothing but their weights."""
    two, three = randomise(make("mmdit").double()), make("mmdit3").double()
    state = two.state_dict()
    for key in list(state):
        for one, other in ((".streams.1.", ".streams.2."), (".texts.0.", ".texts.1.")):
            if one in key:
                state[key.replace(one, other)] = state[key]
    three.load_state_dict(state, strict=True)
    given = inputs(dtype=torch.float64)
    torch.testing.assert_close(three(*given), two(*given))


def test_last_block_has_no_weights_for_text_that_nobody_reads(make):
    last = make("mmdit").last
    assert len(last.texts) == 1
    assert {name.split(".")[0] for name, _ in last.texts[0].named_parameters()} == {"modulation", "kv"}
    assert last.texts[0].modulation.n == 2


@pytest.mark.parametrize("blocks", [-1, 4, 1.5])
def test_second_attentions_that_are_not_there_are_refused(make, blocks):
    with pytest.raises(InstantiationException, match=rf"dual_attention={blocks} blocks; allowed: 0 to depth=3"):
        make("mmdit", depth=3, dual_attention=blocks)


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_second_attention_without_its_gate_is_none(make, inputs, randomise, blocks):
    """The modulation's last three vectors are the second attention's; its first six are those of the block without."""
    plain, dual = make("mmdit").double(), randomise(make("mmdit", dual_attention=blocks).double())
    state = dual.state_dict()
    wanted = plain.state_dict()
    for key in [key for key in state if key not in wanted]:
        assert ".second." in key
        del state[key]
    for key, value in wanted.items():
        state[key] = state[key][: len(value)]
    plain.load_state_dict(state, strict=True)
    width = plain.condition.label.out.out_features
    given = inputs(dtype=torch.float64)
    assert (dual(*given) - plain(*given)).abs().max() > 1e-2
    with torch.no_grad():
        for p in (p for p in dual.state_dict().values() if len(p) == 9 * width):
            p[8 * width :] = 0
    torch.testing.assert_close(dual(*given), plain(*given))
