"""Reads Karpathy's ``dataset_{coco,flickr8k,flickr30k}.json``: pictures, captions and splits in one file.

Format: ``{"dataset": name, "images": [{"filename", "filepath" (COCO only), "imgid", "cocoid" (COCO only), "split",
"sentences": [{"raw", "tokens", "sentid"}]}]}``. There are no picture sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from capxai.data.annotations import FolderListing, Json, is_id
from capxai.data.caption_texts import usable_caption
from capxai.data.drafts import CaptionDraft, Draft, PictureDraft
from capxai.data.findings import Findings
from capxai.data.json_tables import SourceText, is_broken, read_source, walk
from capxai.errors import CorpusError

SPLITS = ("train", "restval", "val", "test")


def read_karpathy(path: Path, images: Path) -> tuple[Draft, str]:
    """Read a file of Karpathy's.

    The id of a picture is COCO's where there is one ("cocoid"), else "imgid". The origin of a picture is its split. A picture
    is looked for in ``images/filepath`` and in ``images``.

    Args:
        path: The file.
        images: The folder of the pictures.

    Returns:
        The draft, with everything unusable noted and left out, and the name of the data set ("" if the file has none).
    """
    draft = Draft(with_words=True)
    try:
        source = read_source(path)
        draft.add_source(source)
        return draft, _read(draft, source, images)
    except CorpusError as error:
        draft.findings.torn(str(error))
        return draft, ""


def _read(draft: Draft, source: SourceText, images: Path) -> str:
    reader, dataset, tables = _Reader(draft, images), "", 0
    for entry in walk(source, ("images",)):
        if entry.place >= 0:
            if isinstance(entry.value, dict):
                reader.add_picture(entry.value)
            else:
                draft.findings.bad("entries of 'images' that are no objects", f"entry {entry.place}")
        elif entry.key == "images" and isinstance(entry.value, list):
            tables += 1
        elif entry.key == "dataset" and isinstance(entry.value, str):
            dataset = entry.value
    if not tables:
        draft.findings.torn(
            f"'{source.path}' has no list 'images'. Expected a file dataset_*.json of Karpathy's splits."
        )
    return dataset


@dataclass
class _Reader:
    """What the file has told so far."""

    draft: Draft
    images: Path
    caption_ids: set[int] = field(default_factory=set)
    files: FolderListing = field(default_factory=FolderListing)

    @property
    def findings(self) -> Findings:
        return self.draft.findings

    def add_picture(self, entry: Json) -> None:
        number = entry.get("cocoid", entry.get("imgid"))
        name, split = entry.get("filename"), entry.get("split")
        if not is_id(number):
            self.findings.bad("pictures without a whole id", repr(number))
        elif number in self.draft.pictures:
            self.findings.bad("image ids that occur twice", number)
        elif not isinstance(name, str) or not name:
            self.findings.bad("pictures without a file name", f"image id {number}")
        elif split not in SPLITS:
            self.findings.bad(f"pictures of a split other than {', '.join(SPLITS)}", f"image id {number}: {split!r}")
        else:
            details = {key: entry[key] for key in ("imgid", "cocoid") if is_id(entry.get(key))}
            file_name = self._file_name(entry.get("filepath"), name)
            self.draft.pictures[number] = PictureDraft(number, self.images, file_name, str(split), None, None, details)
            self.draft.captions[number] = self._captions(number, entry.get("sentences"))

    def _file_name(self, folder: object, name: str) -> str:
        """Return the name with the subfolder that the file tells, unless the pictures lie without it."""
        if not isinstance(folder, str) or not folder:
            return name
        nested = f"{folder}/{name}"
        return name if self.images / nested not in self.files and self.images / name in self.files else nested

    def _captions(self, number: int, sentences: object) -> list[CaptionDraft]:
        if not isinstance(sentences, list):
            self.findings.bad("pictures without a list 'sentences'", f"image id {number}")
            return []
        found = (self._caption(number, place, item) for place, item in enumerate(sentences))
        return [caption for caption in found if caption is not None]

    def _caption(self, number: int, place: int, sentence: object) -> CaptionDraft | None:
        where = f"caption {place} of image id {number}"
        if not isinstance(sentence, Mapping):
            self.findings.bad("captions that are no objects", where)
            return None
        words, caption_id = sentence.get("tokens"), sentence.get("sentid")
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            self.findings.bad("captions without a list of words", where)
        elif any(map(is_broken, words)):
            self.findings.bad("captions with bytes that are no UTF-8 (Latin-1?)", where)
        elif "sentid" in sentence and not is_id(caption_id):
            self.findings.bad("captions with an id that is no whole number", f"{where}: {caption_id!r}")
        elif caption_id in self.caption_ids:
            self.findings.bad("caption ids that occur twice", caption_id)
        elif (text := usable_caption(sentence.get("raw", " ".join(words)), where, self.findings)) is not None:
            if is_id(caption_id):
                self.caption_ids.add(caption_id)
            return CaptionDraft(caption_id, text, tuple(words))
        return None
