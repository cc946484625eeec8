import torch


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
