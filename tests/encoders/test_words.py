import re
import unicodedata

import pytest
import torch

from flowzoo.encoders.words import WordEncoder, ngrams, words_of


def test_same_word_same_vector_other_word_other_vector() -> None:
    encoder = WordEncoder()
    tokens, _ = encoder.encode(["circle red circle", "Circle!"])
    torch.testing.assert_close(tokens[0, 0] - encoder.positions[0], tokens[0, 2] - encoder.positions[2])
    assert torch.equal(tokens[0, 0], tokens[1, 0])
    assert torch.equal(tokens[0, 0], WordEncoder().encode(["circle"])[0][0, 0])
    assert encoder.word("circle").ne(encoder.word("red")).any()


def test_words_that_share_letters_are_alike() -> None:
    encoder = WordEncoder(dim=512)

    def cosine(a: str, b: str) -> float:
        return float(torch.cosine_similarity(encoder.word(a), encoder.word(b), 0))

    assert cosine("triangle", "triangles") > 0.6
    assert abs(cosine("triangle", "yellow")) < 0.2


def test_word_vectors_have_mean_0_and_unit_variance() -> None:
    encoder = WordEncoder(dim=64)
    x = torch.stack([encoder.word(f"w{i}x{i * i}") for i in range(500)])
    assert abs(float(x.mean())) < 0.05
    assert float(x.var()) == pytest.approx(1, abs=0.1)


def test_order_matters_to_tokens_and_not_to_pooled() -> None:
    tokens, pooled = WordEncoder().encode(["red left blue", "blue left red"])
    assert not torch.equal(tokens[0].sort(0).values, tokens[1].sort(0).values)
    torch.testing.assert_close(pooled[0], pooled[1])


def test_a_caption_does_not_depend_on_its_batch_or_on_what_was_seen() -> None:
    encoder = WordEncoder()
    encoder.encode(["words seen before"])
    together = encoder.encode(["a red star", "two blue rings"])
    apart = [WordEncoder().encode([c]) for c in ("a red star", "two blue rings")]
    assert torch.equal(together[0], torch.cat([t for t, _ in apart]))
    assert torch.equal(together[1], torch.cat([p for _, p in apart]))


def test_truncation_and_padding() -> None:
    encoder = WordEncoder(length=3)
    tokens, pooled = encoder.encode(["a b c d e", "a b c", "a", "", " ,.! "])
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(pooled[0], pooled[1])
    assert tokens[2, 1:].eq(0).all()
    assert tokens[2, 0].ne(0).any()
    assert tokens[3:].eq(0).all()
    assert pooled[3:].eq(0).all()


def test_ngrams_are_bytes_of_the_marked_word() -> None:
    assert ngrams("ab") == [b"<ab>", b"<ab", b"ab>"]
    assert b"\xc3\xa9>" in ngrams("é")


def test_vectors_are_the_same_in_every_release() -> None:
    assert WordEncoder(dim=8).word("red").tolist() == pytest.approx(PINNED)


@pytest.mark.parametrize("caption", ["A red_circle's 2x4, ^~$ <b>=+ `c`|d\t!", "rot-weiß 3²", "красный круг", "写真"])
def test_without_marks_and_symbols_words_are_runs_of_word_characters(caption) -> None:
    assert words_of(caption) == re.findall(r"\w+", caption.lower())


@pytest.mark.parametrize("caption", ["café", "한국어", "Ελλάδα", "ÅNGSTRÖM", "İstanbul"])
def test_words_do_not_depend_on_how_an_accent_was_typed(caption) -> None:
    forms = [words_of(unicodedata.normalize(form, caption)) for form in ("NFC", "NFD")]
    assert forms[0] == forms[1]
    assert len(forms[0]) == 1


def test_combining_marks_and_joiners_stay_in_their_word() -> None:
    assert words_of("काल किला, ภาษาไทย; می\u200cخواهم") == ["काल", "किला", "ภาษาไทย", "می\u200cخواهم"]
    assert words_of("\u0301 ! \u200d a\u200d") == ["a"]  # what belongs to no word
    assert WordEncoder().encode(["काल"])[0].ne(WordEncoder().encode(["किला"])[0]).any()


def test_an_emoji_is_a_word() -> None:
    assert words_of("a 🔴🔵dog!") == ["a", "🔴", "🔵", "dog"]
    assert words_of("👩\u200d👩\u200d👧 👍🏽 🇩🇪🇫🇷") == ["👩\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇫🇷"]
    assert words_of("❤\ufe0f ❤ 1\ufe0f\u20e3 ‼\ufe0f ‼") == ["❤", "❤", "1\u20e3", "‼"]
    assert WordEncoder().encode(["🔴"])[0].ne(WordEncoder().encode(["🔵"])[0]).any()


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="length=0"):
        WordEncoder(length=0)
    with pytest.raises(ValueError, match="dim=12"):
        WordEncoder(dim=12)


PINNED = [-2.44949, -0.816497, 0.816497, 1.632993, 1.632993, -0.816497, -0.816497, -0.816497]
