import torch

from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
from flowzoo.tasks.formulation import draw_kept


def test_what_is_dropped_does_not_depend_on_the_precision_of_training() -> None:
    text = TextEncoders({"one": WordEncoder(4, 8), "two": WordEncoder(4, 8)})
    kept = draw_kept(0, 3, text, 200, torch.device("cpu"))
    try:
        torch.set_default_dtype(torch.float64)  # as Lightning does where trainer.precision=64-true
        assert draw_kept(0, 3, text, 200, torch.device("cpu")).equal(kept)
    finally:
        torch.set_default_dtype(torch.float32)
