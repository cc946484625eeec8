"""`data=coco`: a folder or zip of images with the captions of COCO's json, five an image."""

import json
import posixpath
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flowzoo.data.archive import Archive, File, is_text
from flowzoo.data.folder import Folder
from flowzoo.data.sidecars import Beside, distinct
from flowzoo.paths import user_path


class Coco(Folder):
    """One split of COCO, or of anything in its format.

    That is {"images": [{"id", "file_name"}, ...], "annotations": [{"image_id", "caption"}, ...]}.

    `annotations` is the json of `path`, `val_annotations` that of `val_path`. An image is told by the last part of its
    name; its first caption is the prompt. Else as Folder.

    Raises:
        FileNotFoundError: there is no such json.
        ValueError: it is another json, or has no caption of an image.
    """

    def __init__(
        self,
        split: str,
        path: str,
        annotations: str,
        val_path: str | None = None,
        val_annotations: str | None = None,
        image_size: int | Sequence[int] = 32,
        background: str = "white",
        val_fraction: float = 0.05,
        name: str = "coco",
    ) -> None:
        if (val_path is None) != (val_annotations is None):
            missing = "val_path" if val_path is None else "val_annotations"
            raise ValueError(f"{missing} is missing: images and captions of val come together")
        self._annotations = val_annotations if split == "val" and val_annotations is not None else annotations
        super().__init__(
            split,
            path,
            val_path,
            image_size,
            background=background,
            val_fraction=val_fraction,
            name=name,
        )

    def _beside(self, archive: Archive, images: Sequence[File], captions: str) -> Beside:
        given, place = self._annotations, user_path(self._annotations)
        if not place.is_file():
            raise FileNotFoundError(
                f"annotations={given}: there is no such file; COCO's, such as captions_val2014.json, are in "
                "annotations_trainval2014.zip"
            )
        told = _captions_of(given, place.read_bytes())
        named: dict[str, list[str]] = defaultdict(list)
        for image in images:
            named[posixpath.basename(image.name)].append(image.name)
        out = Beside(files=[given])
        for file, lines in told.items():
            if file not in named:
                out.passed.add("captions whose image is not there", file)
            elif kept := distinct(lines):
                out.captions.update(dict.fromkeys(named[file], kept))
            else:
                out.passed.add("empty captions", file)
        if not out.captions:
            raise ValueError(f"annotations={given}: no caption is of an image of {archive.path}")
        return out


def _captions_of(given: str, content: bytes) -> dict[str, list[str]]:
    """Captions by name of the image."""
    try:
        whole: Any = json.loads(content)
        names = {image["id"]: str(image["file_name"]) for image in whole["images"]}
        out: dict[str, list[str]] = {name: [] for name in names.values()}
        for annotation in whole["annotations"]:
            caption = annotation["caption"]
            if annotation["image_id"] in names and isinstance(caption, str) and is_text(caption):
                out[names[annotation["image_id"]]].append(caption)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"annotations={given}: it is no json of captions ({type(error).__name__}: {error}); allowed: COCO's "
            "captions_*.json, with images and annotations"
        ) from error
    return out
