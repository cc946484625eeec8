"""Whether a file can hold weights, by its first bytes and its length, before torch is imported to read it."""

import json
from pathlib import Path

FORMAT = "flowzoo-clip-1"  # of the files that flowzoo.metrics.train_clip writes
MAKER = "python -m flowzoo.metrics.train_clip"
_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of torch.save begins


def check_weights(path: Path, ours: bool) -> None:
    """Raises ValueError for a file that is neither whole safetensors nor of torch.save.

    With `ours` it has to be one that flowzoo.metrics.train_clip wrote.
    """
    if not path.is_file():
        raise ValueError("it is a folder; allowed is a file")
    with open(path, "rb") as file:
        start = file.read(8)
        if not ours and (start.startswith(_ZIP) or (start + file.read(8)).startswith(_LEGACY)):
            return
        file.seek(8)
        size, length = path.stat().st_size, int.from_bytes(start, "little")
        try:
            if len(start) < 8 or length > size - 8:
                raise ValueError
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            allowed = (
                "a file of python -m flowzoo.metrics.train_clip" if ours else "safetensors, or a file of torch.save"
            )
            raise ValueError(f"it does not hold weights; allowed is {allowed}") from None
    if size != 8 + length + end:
        raise ValueError(f"it has {size} bytes where its header says {8 + length + end}: it is cut short or damaged")
    if ours and header.get("__metadata__", {}).get("format") != FORMAT:
        raise ValueError(f"it is of another program; allowed is a file of {MAKER}")
