"""A text encoder that needs no training and no file: hashed byte n-grams, projected at random."""

import math
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b, sha256

import regex
import torch
from torch import Tensor

VERSION = 2  # of the words, the hashing and the positions; part of the fingerprint
# A word is a run of letters, digits and `_` with their combining marks, also across a joiner (Persian, Indic scripts).
# A symbol beyond ASCII is a word of its own, with all that belongs to it: skin tone, family, flag, keycap.
_WORD = regex.compile(
    r"[\w\p{N}--[\p{M}\u200c\u200d]][\w\p{N}\p{M}]* | (?=[\p{S}--\p{ASCII}]|\p{P}\ufe0f)\X",
    regex.VERSION1 | regex.VERBOSE,
)
_JOINERS = "\u200c\u200d"
_VARIATION = "\ufe0f"  # asks for the coloured form of a symbol, and many keyboards leave it out


class WordEncoder:
    """One token a word, as fastText builds word vectors (Bojanowski et al. 2017), with random vectors for the n-grams.

    A word's vector is the sum over its byte n-grams of n = 3..6 and the whole word, `<` and `>` marking its ends,
    divided by the root of their number: mean 0 and unit variance. An n-gram's vector is its hash, read as `dim` signs,
    so the projection is fixed and takes no memory. Related words are alike; case, punctuation and the Unicode form in
    which an accent was typed are ignored. An emoji is a word.

    Tokens are the word vectors plus fixed sinusoids of their position, because attention sees no order by itself. The
    pooled vector is the mean of all word vectors, of words beyond `length` too. A caption without words is all zeros.
    """

    def __init__(self, length: int = 24, dim: int = 64) -> None:
        if length < 1:
            raise ValueError(f"length={length} is out of range; allowed: 1 or more words")
        if not (8 <= dim <= 512 and dim % 8 == 0):
            raise ValueError(f"dim={dim} is out of range; allowed: multiples of 8 from 8 to 512")
        self.length, self.dim, self.pooled_dim = length, dim, dim
        self.fingerprint = sha256(repr(("words", VERSION, length, dim)).encode()).hexdigest()[:16]
        self._known: dict[str, Tensor] = {}
        # Vaswani et al. 2017, sec. 3.5
        rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
        angle = torch.arange(length)[:, None] * rate
        self.positions = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # [L, D]

    def to(self, device: torch.device | str) -> "WordEncoder":
        """Words are looked up on the CPU, wherever the text goes."""
        return self

    def word(self, word: str) -> Tensor:
        """The vector of a word, [D]."""
        if word not in self._known:
            grams = ngrams(word)
            digests = b"".join(blake2b(g, digest_size=self.dim // 8).digest() for g in grams)
            bits = torch.tensor(list(digests), dtype=torch.uint8)[:, None] >> torch.arange(8, dtype=torch.uint8) & 1
            signs = 2.0 * bits.view(len(grams), self.dim) - 1
            self._known[word] = signs.sum(0) / math.sqrt(len(grams))
        return self._known[word]

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens [n, L, D] and pooled [n, D], float32 on the CPU."""
        tokens = torch.zeros(len(captions), self.length, self.dim)
        pooled = torch.zeros(len(captions), self.dim)
        for row, caption in enumerate(captions):
            words = words_of(caption)
            if words:
                vectors = torch.stack([self.word(w) for w in words])
                kept = vectors[: self.length]
                tokens[row, : len(kept)] = kept + self.positions[: len(kept)]
                pooled[row] = vectors.mean(0)
        return tokens, pooled


def words_of(caption: str) -> list[str]:
    """The words of a caption in its order, in lower case and Unicode's normal form C."""
    words: list[str] = _WORD.findall(unicodedata.normalize("NFC", caption.lower()))
    return [word.replace(_VARIATION, "").rstrip(_JOINERS) for word in words]


def ngrams(word: str) -> list[bytes]:
    """The distinct byte n-grams, n = 3..6, of <word>, and <word> itself."""
    marked = b"<" + word.encode() + b">"
    pieces = (marked[i : i + n] for n in range(3, 7) for i in range(len(marked) - n + 1))
    return list(dict.fromkeys([marked, *pieces]))
