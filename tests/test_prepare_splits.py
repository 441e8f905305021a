"""Which picture goes to which split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_corpora import coco_files, write_coco, write_json, write_picture
from typer.testing import CliRunner, Result

from capxai.cli.main import app
from capxai.data.corpus import Corpus
from capxai.data.divisions import COCO_2017, PaperCounts, halved, order, paper, robust
from capxai.data.drafts import Draft, PictureDraft
from capxai.errors import CorpusError


def draft(parts: dict[str, list[int]]) -> Draft:
    made = Draft()
    for origin, ids in parts.items():
        for number in ids:
            made.pictures[number] = PictureDraft(number, Path("p"), f"{number}.jpg", origin, 8, 6, {})
            made.captions[number] = []
    return made


def prepare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["prepare", "coco", "--minimum-count", "1", "--out", "out", *map(str, arguments)])


def members(name: str = "out") -> dict[str, list[int]]:
    corpus = Corpus.open(name)
    return {split: [picture.id for picture in corpus.split(split).pictures] for split in corpus.splits}


def test_paper_takes_the_lowest_ids_in_their_order() -> None:
    found = draft({"train2017": [50, 10, 40, 20, 60, 30, 70], "val2017": [5, 65]})
    counts = PaperCounts(train=3, val=2)
    expected = {10: "train", 20: "train", 30: "train", 40: "val", 50: "val", 5: "test", 65: "test"}
    assert paper(found, "train2017", "val2017", counts, None) == expected
    assert paper(found, "train2017", "val2017", counts, "val") == expected | {60: "val", 70: "val"}
    assert paper(found, "train2017", "val2017", counts, "train") == expected | {60: "train", 70: "train"}


def test_paper_needs_all_of_coco() -> None:
    assert (COCO_2017.train, COCO_2017.val) == (110_000, 5_000)
    with pytest.raises(CorpusError, match=r"takes 3 \+ 2 pictures from 'train2017' .* found are 4 and 1"):
        paper(draft({"train2017": [1, 2, 3, 4], "val2017": [5]}), "train2017", "val2017", PaperCounts(3, 2), None)
    with pytest.raises(CorpusError, match="found are 5 and 0"):
        paper(draft({"train2017": [1, 2, 3, 4, 5]}), "train2017", "val2017", PaperCounts(3, 2), None)


def test_halved_parts_the_val_file_in_turn() -> None:
    found = draft({"train": [4, 3], "val": [9, 7, 8]})
    assert halved(found, {"train": "train", "val": "val"}) == {4: "train", 3: "train", 7: "val", 8: "test", 9: "val"}


def test_splits_have_an_order() -> None:
    assert order(["test", "robust", "train", "a", "val"]) == ["train", "val", "test", "a", "robust"]


@pytest.mark.parametrize("rest", ["leave-out", "train", "val"])
def test_paper_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    """The division is what the whole of COCO gets; here with its counts made small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capxai.data.divisions.COCO_2017", PaperCounts(train=3, val=2))
    write_coco(Path("coco"), {"train2017": [6, 2, 1, 5, 3, 7, 4], "val2017": [9, 8]})
    result = prepare("--root", "coco", "--rest", rest)
    assert result.exit_code == 0, result.output
    assert "Split: paper (the whole of COCO 2017 is there)." in result.stderr
    found = {split: sorted(ids) for split, ids in members().items()}
    left = {"leave-out": [], "train": [6, 7], "val": [6, 7]}[rest]
    assert found["train"] == sorted([1, 2, 3, *(left if rest == "train" else [])])
    assert found["val"] == [4, 5, *(left if rest == "val" else [])]
    assert found["test"] == [8, 9]
    unassigned = 2 if rest == "leave-out" else 0
    assert Corpus.open("out").manifest["unassigned_pictures"] == unassigned
    assert ("2 pictures belong to no split and are left out." in result.stdout) == (unassigned == 2)
    assert "110,000" in result.stdout and "differs" in result.stdout


def test_a_missing_picture_does_not_move_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capxai.data.divisions.COCO_2017", PaperCounts(train=3, val=2))
    write_coco(Path("coco"), {"train2017": [1, 2, 3, 4, 5, 6], "val2017": [8]})
    Path("coco/train2017/000000000002.jpg").unlink()
    Path("coco/train2017/000000000006.jpg").unlink()  # belongs to no split: nobody misses it
    result = prepare("--root", "coco", "--skip-bad")
    assert result.exit_code == 0, result.output
    assert members() == {"train": [1, 3], "val": [4, 5], "test": [8]}
    assert Corpus.open("out").manifest["left_out"] == {"missing picture files": 1}


def test_robust_takes_pictures_of_both_years_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(Path("coco"), {"train2014": [1, 2, 3], "val2014": [11, 12, 13], "train2017": [1, 11], "val2017": [2]})
    claims = {"train_id": [1, 11, 11, 12], "val_id": [2], "test_id": [13]}
    write_json(Path("split.json"), {key: [{"img_id": number} for number in ids] for key, ids in claims.items()})
    result = prepare("--root", "coco", "--robust-split", "split.json")
    assert result.exit_code == 0, result.output
    assert "those of 2014 are used" in result.stderr
    assert members() == {"train": [1, 11, 12], "val": [2], "test": [13]}
    assert "To note: 1 image ids that stand more than once in a list of the split file." in result.stdout
    assert "1 pictures belong to no split and are left out." in result.stdout
    split = Corpus.open("out").split("train")
    assert [picture.path.parent.name for picture in split.pictures] == ["train2014", "val2014", "val2014"]
    assert [len(split.objects[number]) for number in (1, 11, 12)] == [1, 1, 1]
    assert Corpus.open("out").manifest["split"] == "robust"
    assert "110,234" in result.stdout


def test_problems_of_the_split_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(Path("coco"), {"train2014": [1, 2, 3]})
    write_json(Path("split.json"), {"train_id": [1, 2, "3", {"id": 3}], "test_id": [2, 3, 99]})
    result = prepare("--root", "coco", "--robust-split", "split.json")
    assert result.exit_code == 1
    assert "- 2 entries of the split file without a whole 'img_id' ('3' in train_id, None in train_id)" in result.stderr
    assert "- 1 image ids that two splits of the split file claim (2)" in result.stderr
    assert "- 1 image ids of the split file for which there is no usable picture (99)" in result.stderr
    assert prepare("--root", "coco", "--robust-split", "split.json", "--skip-bad").exit_code == 0
    assert members() == {"train": [1], "test": [3]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "holds a JSON list"),
        ("{}", "has no lists train_id, val_id and test_id"),
        ('{"train_id": [', "is not complete JSON"),
        ('{"../up_id": [1]}', "A split is called '../up'."),
    ],
)
def test_files_that_divide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(Path("coco"), {"train2014": [1, 2, 3]})
    Path("split.json").write_text(text)
    result = prepare("--root", "coco", "--robust-split", "split.json", "--skip-bad")
    assert result.exit_code == 1 and found in result.stderr and not Path("out").exists()


def test_plain_numbers_and_other_keys_of_a_split_file(tmp_path: Path) -> None:
    path = write_json(tmp_path / "s.json", {"train_id": [1], "val_id": [2], "note": "x", "made_id": "y"})
    found = draft({"train2014": [1, 2, 3]})
    assert robust(found, path) == {1: "train", 2: "val"}
    assert found.findings.lines() == []


def test_one_caption_file_makes_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("mine.json"), coco_files("x", [1, 2])["captions"])
    for number in (1, 2):
        write_picture(Path("p") / f"{number:012d}.jpg")
    result = prepare("--captions", "train=mine.json", "--images", "p")
    assert result.exit_code == 0, result.output
    assert members() == {"train": [1, 2]}
    assert json.loads(Path("out/run.json").read_text())["config"]["captions"] == ["train=mine.json"]


def test_coco_is_known_by_its_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capxai.data.divisions.COCO_2017", PaperCounts(train=3, val=1))
    write_coco(Path("coco"), {"train2017": [1, 2, 3, 4], "val2017": [8]})
    files = [f"--captions={split}=coco/annotations/captions_{split}2017.json" for split in ("train", "val")]
    result = prepare(*files, *(f"--images={split}=coco/{split}2017" for split in ("train", "val")))
    assert result.exit_code == 0, result.output
    assert members() == {"train": [1, 2, 3], "val": [4], "test": [8]}
