"""Real photographs through every verb: prepare, extract-features, train until the captions are known by heart, explain, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from learned_photographs import PICTURES, Photographs, needs_photographs, run

from capxai.data.vocabulary import tokenize

ENOUGH = 70

pytestmark = [pytest.mark.slow, needs_photographs]


def test_photographs_are_learned_by_heart(photographs: Photographs, tmp_path: Path) -> None:
    known = ("--model", photographs.model, "--corpus", photographs.corpus, "--split", "train")
    run("eval", *known, "--chair", "--beam", "1", "--out", tmp_path / "eval")
    content = json.loads(photographs.captions.read_text())
    references: dict[int, set[str]] = {}
    for item in content["annotations"]:
        references.setdefault(item["image_id"], set()).add(" ".join(tokenize(item["caption"])))
    found = {
        image["image_id"]: image["caption"] for image in json.loads((tmp_path / "eval/eval.json").read_text())["images"]
    }
    assert len(found) == len(references) == PICTURES
    learned = [number for number, caption in found.items() if caption in references[number]]
    assert len(learned) >= ENOUGH

    name = next(image["file_name"] for image in content["images"] if image["id"] == learned[0])
    run(
        *("explain", photographs.picture(name), "--model", photographs.model, "--beam", "1"),
        *("--out", tmp_path / "explained"),
    )
    explained = json.loads((tmp_path / "explained" / Path(name).stem / "explanation.json").read_text())
    assert explained["caption"] == found[learned[0]]  # the picture itself gives what its stored features gave
