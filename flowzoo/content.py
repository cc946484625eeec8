"""What a file or a folder holds, as one digest, so that the same weights are the same under any name. Without torch."""

import hashlib
import os
from pathlib import Path

from flowzoo.paths import user_path

# What comes with the package, and by class: what `weights=null` stands for.
SHIPPED = Path(__file__).parent / "metrics" / "weights" / "clip_shapes.safetensors"
SHIPPED_DETECTOR = Path(__file__).parent / "detector" / "weights" / "detector_shapes.safetensors"
SHIPPED_KL = Path(__file__).parent / "autoencoders" / "weights" / "kl_shapes.safetensors"
SHIPPED_WITH = {
    "ClipTower": SHIPPED,
    "Extractor": SHIPPED,
    "ClipFeatures": SHIPPED,
    "GenEval": SHIPPED_DETECTOR,
    "Attributes": SHIPPED_DETECTOR,
    "KLAutoencoder": SHIPPED_KL,
}

_known: dict[tuple[str, int, int, int], str] = {}


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, or of the names and contents of all files in a folder, as 64 hexadecimal digits.

    A file is read once a process, as long as its size and the times of its last change stay what they were.
    Raises OSError.
    """
    path = user_path(path)
    if path.is_dir():
        files = sorted(Path(place, name) for place, _, names in os.walk(path) for name in names)
        listed = "".join(f"{sha256_of(file)} {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    at = path.stat()
    key = (str(path.resolve()), at.st_size, at.st_mtime_ns, at.st_ctime_ns)
    if key not in _known:
        with open(path, "rb") as file:
            _known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known[key]
