"""``capxai prepare coco|flickr30k|karpathy``: what is written, counted and printed."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from small_corpora import SIZE, coco_files, karpathy_file, write_coco, write_json, write_karpathy, write_picture
from typer.testing import CliRunner, Result

from capxai.cli.main import app
from capxai.data import corpus as corpus_module
from capxai.data.annotations import read_json
from capxai.data.corpus import Corpus
from capxai.errors import CorpusError
from capxai.recipes.prepare_coco import PrepareCocoConfig, run
from capxai.recipes.prepare_corpus import CorpusReport
from capxai.recipes.prepare_expected import COCO_2017, COCO_2017_PAPER, COCO_KARPATHY, COCO_ROBUST, FLICKR8K, FLICKR30K

COCO_MINI = Path(__file__).resolve().parents[2] / "shared" / "coco-mini"
README = Path(__file__).resolve().parents[1] / "data" / "README.md"
PARTS = {"train2017": [7, 3, 5, 1, 9], "val2017": [8, 2, 6, 4]}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def coco(**settings: Any) -> CorpusReport:
    return run(PrepareCocoConfig(root=Path("coco"), out=Path("out"), minimum_count=1, **settings))


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_as_coco_unpacks() -> None:
    write_coco(Path("coco"), PARTS)
    result = prepare("coco", "--root", "coco", "--out", "out", "--split", "official", "--minimum-count", 1)
    assert result.exit_code == 0, result.output
    assert re.search(r"^train +pictures +5 +118,287 +differs$", result.stdout, re.M)
    assert re.search(r"^val +objects +3 +36,781 +differs$", result.stdout, re.M)
    assert re.search(r"^ +vocabulary +\d+ +- *$", result.stdout, re.M)
    assert "6 counts are not those of COCO 2017 as it is published." in result.stdout
    assert "Split: official (as asked for)." in result.stderr
    corpus = Corpus.open("out")
    split = corpus.split("train")
    assert [picture.id for picture in split.pictures] == PARTS["train2017"]
    assert split.picture(7).path == Path("coco/train2017/000000000007.jpg").absolute()
    assert split.captions[7] == ("A red car, number 7.", "a car and a fork")
    assert split.objects[7][0].category == "car" and split.objects[9] == () and split.has_objects
    assert split.mask(split.objects[7][0]).sum() == 6


def test_objects_are_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(Path("coco"), PARTS)
    coco(split="official")
    split = Corpus.open("out").split("train")
    assert split.has_objects
    copy = pickle.loads(pickle.dumps(split))
    read: list[Path] = []

    def counted(path: Path, sha256: str | None = None) -> Any:
        read.append(path)
        return read_json(path, sha256)

    monkeypatch.setattr(corpus_module, "read_json", counted)
    assert (len(split.objects), split.categories, read) == (
        5,
        {3: "car", 48: "fork"},
        [Path("out/annotations/instances_train.json")],
    )
    again = pickle.loads(pickle.dumps(split))
    assert copy.objects == split.objects == again.objects and len(read) == 3
    with pytest.raises(KeyError):
        split.objects[8]


def test_the_manifest_has_counts_and_hashes() -> None:
    write_coco(Path("coco"), PARTS)
    report = coco(split="official")
    manifest = json.loads(Path("out/corpus.json").read_text())
    entry = manifest["splits"]["train"]
    counts = {name: entry[name] for name in ("pictures", "captions_count", "objects", "pictures_without_objects")}
    assert counts == {"pictures": 5, "captions_count": 10, "objects": 4, "pictures_without_objects": 1}
    for kind in ("captions", "instances", "encoded"):
        assert entry["sha256"][kind] == hash_of(Path("out") / entry[kind])
    assert manifest["vocabulary"]["sha256"] == hash_of(Path("out/vocabulary.json"))
    assert manifest["vocabulary"] == report.vocabulary and manifest["vocabulary"]["tokens"] == "capxai"
    sources = {Path(source["file"]).name: source for source in manifest["sources"]}
    assert len(sources) == 4
    file = Path("coco/annotations/captions_train2017.json")
    assert sources[file.name] == {"file": str(file.absolute()), "sha256": hash_of(file), "bytes": file.stat().st_size}
    assert (manifest["left_out"], manifest["notices"], manifest["unassigned_pictures"]) == ({}, {}, 0)
    record = json.loads(Path("out/run.json").read_text())
    assert record["verb"] == "prepare coco" and record["config"]["root"] == "coco"


def test_annotation_files_are_coco_s_and_keep_what_they_had() -> None:
    write_coco(Path("coco"), PARTS)
    coco(split="halved")
    source = COCO("coco/annotations/instances_val2017.json")
    for split, ids in (("val", [2, 6]), ("test", [4, 8])):
        written = COCO(f"out/annotations/instances_{split}.json")
        assert sorted(written.imgs) == ids and written.cats == source.cats
        assert written.anns == {key: item for key, item in source.anns.items() if item["image_id"] in ids}
        captions = COCO(f"out/annotations/captions_{split}.json")
        assert [item["license"] for item in captions.imgs.values()] == [4, 4]
        assert captions.dataset["licenses"] == [{"id": 4, "name": "by"}]


def test_captions_are_encoded_with_the_vocabulary_of_the_training_captions() -> None:
    write_coco(Path("coco"), PARTS)
    run(PrepareCocoConfig(root=Path("coco"), out=Path("out"), minimum_count=5))
    corpus = Corpus.open("out")
    vocabulary = corpus.vocabulary()
    assert vocabulary is not None
    assert vocabulary.words[4:] == ("a", "car", "and", "fork", "number", "red")  # 15, 10 and 5 times
    for name in corpus.splits:
        split, encoded = corpus.split(name), corpus.encoded(name)
        assert encoded is not None and encoded.image_ids.tolist() == [picture.id for picture in split.pictures]
        texts = [text for picture in split.pictures for text in split.captions[picture.id]]
        expected = [vocabulary.encode_or_unknown(text) for text in texts]
        assert [encoded.caption(number).tolist() for number in range(len(texts))] == expected
        assert encoded.captions_per_picture.tolist() == [2] * len(split)
    entry = corpus.manifest["splits"]["train"]
    assert (entry["words"], entry["unknown_words"]) == (50, 5)


def test_published_tokens_split_at_every_sign() -> None:
    write_coco(Path("coco"), PARTS)
    file = Path("coco/annotations/captions_train2017.json")
    content = json.loads(file.read_text())
    content["annotations"][0]["caption"] = "The man's T-shirt"
    write_json(file, content)
    coco(tokens="published")
    published = Corpus.open("out").vocabulary()
    assert published is not None and {"man", "s", "t", "shirt"} <= set(published.words)
    coco(force=True)
    own = Corpus.open("out").vocabulary()
    assert own is not None and {"man's", "t-shirt"} <= set(own.words) and "shirt" not in own


def test_without_a_training_split_there_is_no_vocabulary() -> None:
    write_coco(Path("coco"), {"val2017": [1, 2]})
    report = coco()
    assert report.mode == "official" and report.vocabulary is None and list(report.splits) == ["val"]
    corpus = Corpus.open("out")
    assert corpus.vocabulary() is None and corpus.encoded("val") is None


def test_the_same_files_give_the_same_bytes() -> None:
    write_coco(Path("coco"), PARTS)
    coco()
    first = {path: hash_of(path) for path in Path("out").rglob("*.*") if path.name != "run.json"}
    coco(force=True)
    assert first == {path: hash_of(path) for path in first} and len(first) == 11


def test_an_existing_corpus_is_kept_unless_forced() -> None:
    write_coco(Path("coco"), PARTS)
    coco()
    (Path("out") / "mark").write_text("")
    again = prepare("coco", "--root", "coco", "--out", "out")
    assert again.exit_code == 1 and "--force" in again.stderr and Path("out/mark").exists()
    assert prepare("coco", "--root", "coco", "--out", "out", "--force", "--minimum-count", 1).exit_code == 0
    assert not Path("out/mark").exists()
    Path("papers").mkdir()
    Path("papers/thesis.tex").write_text("")
    refused = prepare("coco", "--root", "coco", "--out", "papers", "--force")
    assert refused.exit_code == 1 and "is not a corpus folder" in refused.stderr and Path("papers/thesis.tex").exists()


def test_a_failure_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(Path("coco"), PARTS)
    before = set(Path().iterdir())
    assert prepare("coco", "--root", "coco", "--out", "out", "--minimum-count", 1000).exit_code == 1
    monkeypatch.setattr("capxai.recipes.prepare_corpus.write_record", lambda *_, **__: (_ for _ in ()).throw(OSError))
    assert prepare("coco", "--root", "coco", "--out", "out", "--minimum-count", 1).exit_code == 1
    assert set(Path().iterdir()) == before


def test_a_changed_file_is_found() -> None:
    write_coco(Path("coco"), PARTS)
    coco()
    corpus = Corpus.open("out")
    for name in ("annotations/captions_train.json", "annotations/instances_train.json", "encoded/train.npz"):
        path = Path("out") / name
        content = path.read_bytes()
        path.write_bytes(content.replace(b"car", b"bus") if name.endswith("json") else content[:-1])
        with pytest.raises(CorpusError, match=f"{path.name}' is torn or was changed"):
            corpus.encoded("train") if path.suffix == ".npz" else corpus.split("train")
        path.write_bytes(content)
    path = Path("out/vocabulary.json")
    path.write_bytes(path.read_bytes().replace(b"car", b"bus"))
    with pytest.raises(CorpusError, match="vocabulary.json' is torn or was changed"):
        corpus.vocabulary()
    Path("out/encoded/val.npz").unlink()
    with pytest.raises(CorpusError, match=r"val.npz' cannot be read \(No such file or directory\)"):
        corpus.encoded("val")


def test_files_by_name_and_subfolders() -> None:
    files = coco_files("x", [1, 2])
    files["captions"]["images"][0]["file_name"] = "deep/er/one.jpg"
    write_json(Path("a.json"), files["captions"])
    write_json(Path("b.json"), coco_files("y", [3])["captions"])
    for name in ("p/deep/er/one.jpg", "p/000000000002.jpg", "q/000000000003.jpg"):
        write_picture(Path(name))
    arguments = ("--captions", "train=a.json", "--captions", f"val={Path('b.json').absolute()}", "--minimum-count", 1)
    result = prepare("coco", *arguments, "--images", "train=p", "--images", f"val={Path('q').absolute()}", "--out", "o")
    assert result.exit_code == 0, result.output
    corpus = Corpus.open("o")
    assert corpus.splits == ("train", "val", "test")[: len(corpus.splits)]
    assert corpus.split("train").picture(1).path == Path("p/deep/er/one.jpg").absolute()
    assert not corpus.split("train").has_objects


def test_several_files_make_one_split() -> None:
    """Pictures of two folders, captions whose ids collide, objects of two files."""
    first, second = coco_files("x", [1, 2]), coco_files("y", [3, 4])
    for number, caption in enumerate(second["captions"]["annotations"]):
        caption["id"] = first["captions"]["annotations"][number]["id"]
    for name, files in {"train2014": first, "train2017": second}.items():
        for kind, content in files.items():
            write_json(Path(f"{kind}_{name}.json"), content)
        for image in files["captions"]["images"]:
            write_picture(Path(name) / image["file_name"])
    options = [
        f"--{kind}={name}={kind}_{name}.json"
        for kind in ("captions", "instances")
        for name in ("train2014", "train2017")
    ]
    folders = ("--images", "train2014=train2014", "--images", "train2017=train2017")
    result = prepare("coco", *options, *folders, "--out", "o", "--minimum-count", 1)
    assert result.exit_code == 0, result.output
    assert "To note: 8 captions numbered anew" in result.stdout
    split = Corpus.open("o").split("train")
    assert [picture.path.parent.name for picture in split.pictures] == ["train2014"] * 2 + ["train2017"] * 2
    assert [len(items) for items in split.objects.values()] == [1, 0, 1, 0]
    captions = json.loads(Path("o/annotations/captions_train.json").read_text())
    assert [item["id"] for item in captions["annotations"]] == list(range(1, 9))
    assert captions["images"][0]["file_name"] == "train2014/000000000001.jpg"


def test_objects_in_some_splits_only() -> None:
    write_coco(Path("coco"), PARTS)
    Path("coco/annotations/instances_train2017.json").unlink()
    coco(split="official")
    corpus = Corpus.open("out")
    assert not corpus.split("train").has_objects and corpus.split("val").has_objects


def test_flickr30k() -> None:
    write_karpathy(Path("f"), "flickr30k", {"train": [0, 1, 2], "val": [3], "test": [4, 5]})
    arguments = (
        "flickr30k",
        "--karpathy",
        "f/dataset_flickr30k.json",
        "--images",
        "f/pictures",
        "--tokens",
        "published",
    )
    result = prepare(*arguments)
    assert result.exit_code == 0, result.output
    assert re.search(r"^train +pictures +3 +29,000 +differs$", result.stdout, re.M)
    assert re.search(r"^ +vocabulary +7 +9,586 +differs$", result.stdout, re.M)  # a, tshirt, number and four specials
    corpus = Corpus.open("flickr30k")
    assert corpus.name == "flickr30k" and corpus.manifest["vocabulary"]["minimum_count"] == 3
    picture = corpus.split("test").picture(5)
    assert (picture.path, picture.width, picture.height) == (Path("f/pictures/5.jpg").absolute(), *SIZE)
    vocabulary = corpus.vocabulary()
    assert vocabulary is not None and vocabulary.words[4:] == ("a", "tshirt", "number")
    assert corpus.split("test").captions[5] == ("A T-shirt number 5", "a T-shirt")
    other = write_karpathy(Path("g"), "flickr8k", {"train": [0]})
    refused = prepare("flickr30k", "--karpathy", other, "--images", "g/pictures", "--out", "o")
    assert refused.exit_code == 1 and "of the data set 'flickr8k'. Expected 'flickr30k'" in refused.stderr


def test_karpathy_s_coco() -> None:
    splits = {"train": [1, 2], "restval": [3], "val": [4], "test": [5]}
    file = write_karpathy(Path("k"), "coco", splits)
    instances = write_json(Path("instances_val2014.json"), coco_files("x", [1001, 1002, 1003, 1004, 1005])["instances"])
    arguments = ("karpathy", "--karpathy", file, "--images", "k/pictures", "--minimum-count", 1)
    assert prepare(*arguments, "--instances", instances).exit_code == 0
    corpus = Corpus.open("coco")
    split = corpus.split("train")
    assert [picture.id for picture in split.pictures] == [1001, 1002, 1003]
    assert split.picture(1003).path == Path("k/pictures/val2014/3.jpg").absolute()
    assert split.objects[1001][0].category == "car"
    result = prepare(*arguments, "--restval", "leave-out", "--out", "without")
    assert "1 pictures belong to no split and are left out." in result.stdout
    assert len(Corpus.open("without").split("train")) == 2
    flat = prepare(*arguments[:3], "--images", "k/pictures/val2014", "--out", "flat", "--minimum-count", 1)
    assert flat.exit_code == 0, flat.output
    robust = write_json(Path("r.json"), {"train_id": [{"img_id": 1005}], "test_id": [{"img_id": 1001}]})
    assert prepare(*arguments, "--robust-split", robust, "--out", "robust").exit_code == 0
    assert [picture.id for picture in Corpus.open("robust").split("train").pictures] == [1005]


def test_the_report_as_json() -> None:
    write_coco(Path("coco"), PARTS)
    result = prepare("coco", "--root", "coco", "--out", "out", "--minimum-count", 1, "--json", "--quiet")
    report = json.loads(result.stdout)
    assert report["mode"] == "halved" and report["splits"]["test"]["pictures"] == 2 and result.stderr == ""
    assert {"split": "val", "what": "captions", "found": 4, "expected": None, "differs": False} in report["comparisons"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["coco"], "Nothing says where the captions are."),
        (["coco", "--root", "none"], "'none' is no folder"),
        (["coco", "--root", "empty"], "'empty' has no captions_*.json"),
        (["coco", "--captions", "train=a.json"], "Name it with --images train=DIR."),
        (["coco", "--root", "coco", "--images", "vla2017=coco"], "'vla2017=coco' go with no captions."),
        (["coco", "--root", "coco", "--split", "papr"], "Did you mean 'paper'?"),
        (["coco", "--root", "coco", "--split", "paper"], "Expected the whole of COCO 2017. Choose --split official"),
        (["coco", "--root", "coco", "--split", "paper", "--robust-split", "x"], "Leave out the other."),
        (["coco", "--root", "coco", "--split", "halved", "--rest", "val"], "--split paper alone"),
        (["coco", "--root", "coco", "--minimum-count", "0"], "Expected 1 or more"),
        (["coco", "--root", "coco", "--minimum-count", "1000"], "Change --minimum-count"),
        (["flickr30k"], "Give --karpathy FILE."),
        (["flickr30k"], "Give --images DIR."),
        (["karpathy", "--karpathy", "none.json", "--images", "coco"], "'none.json' cannot be read"),
        (
            ["karpathy", "--karpathy", "coco/annotations/captions_val2017.json", "--images", "coco"],
            "4 pictures without a whole id",
        ),
    ],
)
def test_refusals(arguments: list[str], expected: str) -> None:
    write_coco(Path("coco"), PARTS)
    Path("empty").mkdir()
    result = prepare(*arguments, "--out", "out")
    assert result.exit_code == 1, result.output
    assert expected in result.stderr
    assert "Traceback" not in result.output and not Path("out").exists()


def test_expected_counts_are_those_of_the_data_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for counts in (COCO_2017_PAPER, FLICKR30K, COCO_ROBUST):
        pictures = [f"{counts.splits[split]['pictures']:,}" for split in ("train", "val", "test")]
        assert " | ".join(pictures) in text
        if counts.vocabulary:
            assert f"words seen {counts.minimum_count} times or more: {counts.vocabulary:,}" in text
    assert sum(split["captions"] for split in COCO_KARPATHY.splits.values()) == 414_113 + 202_654  # all of COCO 2014
    assert sum(split["pictures"] for split in COCO_ROBUST.splits.values()) == 123_287 == 82_783 + 40_504
    assert sum(split["captions"] for split in COCO_2017.splits.values()) == 414_113 + 202_654  # the same pictures
    assert all(
        split["captions"] == 5 * split["pictures"] for split in (*FLICKR30K.splits.values(), *FLICKR8K.splits.values())
    )


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="the photographs of coco-mini are not here")
def test_coco_mini() -> None:
    result = prepare("coco", "--root", COCO_MINI, "--out", "mini", "--check-pictures")
    assert result.exit_code == 0, result.output
    assert "Split: halved (there are a train and a val file and no test; 'train2017' has 80 pictures" in result.stderr
    assert "Left out" not in result.stdout and "To note" not in result.stdout
    corpus = Corpus.open("mini")
    splits = {name: corpus.split(name) for name in corpus.splits}
    assert {name: len(split) for name, split in splits.items()} == {"train": 80, "val": 40, "test": 39}
    assert sum(len(items) for split in splits.values() for items in split.objects.values()) == 1363
    ids = [picture.id for split in splits.values() for picture in split.pictures]
    assert len(set(ids)) == 159
    encoded = corpus.encoded("train")
    assert encoded is not None and encoded.captions_per_picture.sum() == 400 and encoded.tokens.dtype == np.int32


def test_a_place_that_takes_no_folder() -> None:
    write_coco(Path("coco"), PARTS)
    Path("file").write_text("")
    result = prepare("coco", "--root", "coco", "--out", "file/out")
    assert result.exit_code == 1 and "takes no new folder (Not a directory)" in result.stderr


def test_a_data_set_s_name_names_no_other_folder() -> None:
    write_karpathy(Path("k"), "flickr8k", {"train": [1]})
    file = write_json(Path("k/named.json"), karpathy_file("../up", {"train": [1]}))
    result = prepare("karpathy", "--karpathy", file, "--images", "k/pictures", "--minimum-count", 1)
    assert result.exit_code == 0, result.output
    assert Corpus.open("karpathy").name == "karpathy"
