from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from flowzoo.encoders.text import Text, TextEncoders, understood, unmerged
from flowzoo.encoders.words import WordEncoder

CONF = Path(__file__).parents[2] / "conf" / "text"


def three() -> TextEncoders:
    return TextEncoders({"a": WordEncoder(4, 8), "b": WordEncoder(6, 16), "c": WordEncoder(2, 24)})


def equal(one: Text, other: Text) -> bool:
    pairs = zip((*one.tokens, *one.pooled), (*other.tokens, *other.pooled), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_spec_says_the_shapes() -> None:
    encoders = three()
    for text in (encoders.encode(["red circle", ""]), encoders.null(2)):
        shapes = [tuple(x.shape) for x in text.tokens]
        assert shapes == [(2, *s) for s in zip(encoders.spec.lengths, encoders.spec.dims, strict=True)]
        assert [tuple(x.shape) for x in text.pooled] == [(2, p) for p in encoders.spec.pooled]
        assert all(x.dtype == torch.float32 for x in (*text.tokens, *text.pooled))
    assert encoders.names == ("a", "b", "c")


def test_drop_zeroes_exactly_what_is_dropped() -> None:
    encoders = three()
    text = encoders.encode(["red circle", "blue square", "two stars"])
    assert equal(encoders.drop(text, torch.ones(3, 3, dtype=torch.bool)), text)
    assert equal(encoders.drop(text, torch.zeros(3, 3, dtype=torch.bool)), encoders.null(3))
    for sample in range(3):
        for encoder in range(3):
            keep = torch.ones(3, 3, dtype=torch.bool)
            keep[sample, encoder] = False
            dropped = encoders.drop(text, keep)
            for part, whole in ((dropped.tokens, text.tokens), (dropped.pooled, text.pooled)):
                for i in range(3):
                    expected = whole[i].clone()
                    if i == encoder:
                        expected[sample] = 0
                    assert torch.equal(part[i], expected)


def test_what_no_caption_reaches_is_one_token_and_comes_back() -> None:
    encoders = three()  # of 4, 6 and 2 tokens
    text = encoders.encode(["red circle", "blue", "", "two red stars"])
    assert text.lengths() == (3, 3, 2)
    merged = text.merged()
    assert [x.shape[1] for x in merged.tokens] == [4, 4, 2]
    assert merged.counts == (1, 3, 1)
    assert equal(merged.whole(), text)
    assert merged.whole().counts == ()
    assert merged.rows(slice(1, 3)).to(torch.float64).counts == merged.counts
    keep = torch.tensor([[True, False, True]]).expand(4, -1)
    assert equal(encoders.drop(merged, keep).whole(), encoders.drop(text, keep))
    assert equal(text.merged((4, 5, 2)).whole(), text)  # of which these are some of the captions
    shorter = merged.rows(slice(0, 3)).merged()  # once more, of fewer captions
    assert shorter.counts == (2, 4, 1)
    assert equal(shorter.whole(), text.rows(slice(0, 3)))


def test_no_text_is_one_token_an_encoder() -> None:
    null = three().null(5)
    assert [x.shape[1] for x in null.merged().tokens] == [1, 1, 1]
    assert null.merged().counts == (4, 6, 2)
    assert equal(null.merged().whole(), null)
    with unmerged():
        assert null.merged() is null


def test_a_caption_that_fills_all_places_is_left_as_it_is() -> None:
    text = TextEncoders({"a": WordEncoder(4, 8)}).encode(["one two three four", "one two three"])
    assert equal(text.merged(), text)
    assert text.merged().key_bias(3, text.tokens[0]) is None
    assert text.key_bias(3, text.tokens[0]) is None


def test_keys_are_counted_where_they_stand() -> None:
    text = three().null(1).merged()
    bias = text.key_bias(3, torch.zeros(1, dtype=torch.float64))
    assert bias is not None
    assert bias.dtype == torch.float64
    assert bias.exp().tolist() == [pytest.approx([1, 1, 1, 4, 6, 2])]


def test_who_knows_nothing_of_counts_gets_every_token() -> None:
    class Knows:
        knows_counts = True

    class Derived(Knows):
        """May do other things with its text."""

    null = three().null(1)
    assert understood(Knows(), null.merged()).counts == (4, 6, 2)
    for other in (object(), Derived()):
        assert equal(understood(other, null.merged()), null)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_tenth_has_no_text_at_all(n: int) -> None:
    encoders = TextEncoders({str(i): WordEncoder(2, 8) for i in range(n)})
    assert encoders.p_drop**n == pytest.approx(0.1)


def test_fingerprint_holds_names_order_and_encoders() -> None:
    a, b = WordEncoder(4, 8), WordEncoder(6, 8)
    sets = [{"a": a, "b": b}, {"b": b, "a": a}, {"a": b, "b": a}, {"a": a}, {"x": a, "b": b}]
    assert len({TextEncoders(s).fingerprint for s in sets}) == len(sets)
    assert TextEncoders({"a": a}).fingerprint == TextEncoders({"a": WordEncoder(4, 8)}).fingerprint
    with pytest.raises(ValueError, match="empty"):
        TextEncoders({})


def test_config_builds_the_words() -> None:
    encoders = instantiate(OmegaConf.load(CONF / "words.yaml"))
    assert encoders.names == ("words",)
    assert encoders.spec.lengths == (24,)
    assert encoders.spec.dims == encoders.spec.pooled == (64,)
