"""Brings the objects of instance files together with the pictures of a draft."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from capxai.data.annotations import Json
from capxai.data.drafts import Draft, ObjectTable


def compare_sizes(draft: Draft) -> None:
    """Take picture sizes from the instance files where the captions' source has none; note and take out what disagrees."""
    refused: set[int] = set()
    for table in draft.objects:
        for number, size in table.sizes.items():
            picture = draft.pictures.get(number)
            if picture is None or size is None:
                continue
            annotated = (picture.width, picture.height)
            if None in annotated:
                picture.width, picture.height = size
            elif annotated != size:
                found = f"{annotated[0]} x {annotated[1]} and {size[0]} x {size[1]}"
                draft.findings.bad("pictures of different sizes in two files", f"image id {number}: {found}")
                refused.add(number)
    draft.drop(lambda picture: picture.id in refused)


def check_coverage(draft: Draft, division: Mapping[int, str]) -> set[str]:
    """Return the splits whose pictures the instance files list; note and take out pictures that they leave out.

    A split of which they list no picture has no objects at all, which is another thing than pictures without objects.
    """
    listed: set[int] = set().union(*(table.sizes for table in draft.objects))
    covered = {division[number] for number in draft.pictures if number in listed and number in division}
    absent = {number for number in draft.pictures if division.get(number) in covered and number not in listed}
    for number in sorted(absent):
        draft.findings.bad("pictures that no instance file lists, in splits with objects", f"image id {number}")
    draft.drop(lambda picture: picture.id in absent)
    return covered


def merged_categories(draft: Draft) -> dict[int, Json]:
    """Collect the categories of all instance files; a number that means two things is noted as fatal."""
    categories: dict[int, Json] = {}
    for table in draft.objects:
        for number, category in table.categories.items():
            known = categories.setdefault(number, category)
            if known["name"] != category["name"]:
                draft.findings.torn(
                    f"'{table.source.path}' calls the category {number} '{category['name']}', and another instance file calls "
                    f"it '{known['name']}'. Expected the same categories in all of them."
                )
    return dict(sorted(categories.items()))


def note_outside(draft: Draft) -> None:
    """Note how many objects are on pictures that are in no split, and so are left out."""
    for table in draft.objects:
        outside = int((~np.isin(table.image_ids, _numbers(draft.pictures))).sum())
        if outside:
            draft.findings.odd("objects of pictures that are in no split, left out", table.source.path.name, outside)


def objects_of(draft: Draft, image_ids: Collection[int]) -> list[ObjectTable]:
    """Cut the tables to the objects of some pictures; an id that an earlier table had is noted and left out."""
    wanted, seen, found = _numbers(image_ids), _numbers(()), []
    for table in draft.objects:
        cut = table.keep(np.isin(table.image_ids, wanted))
        again = np.isin(cut.ids, seen)
        if again.any():
            first = f"{cut.ids[again][0]} in {table.source.path.name}"
            draft.findings.bad("object ids that occur in two files", first, int(again.sum()))
        found.append(cut.keep(~again))
        seen = np.concatenate([seen, found[-1].ids])
    return found


def _numbers(ids: Collection[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.fromiter(ids, dtype=np.int64, count=len(ids))
