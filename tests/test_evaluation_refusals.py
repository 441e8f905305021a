"""``capxai eval`` refuses bad files and settings that cannot be used, names the place, and never measures a silent zero."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_command import FILES, PYTHON_BLEU, invoke, refusal, report
from evaluation_files import (
    CAPTIONS,
    OBJECTS,
    OTHERS,
    REFERENCES,
    caption_file,
    instance_file,
    results,
    write,
    write_all,
)

from capxai.errors import ConfigError, CorpusError
from capxai.recipes.evaluate import EvaluateConfig, run


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with annotation files, predictions and pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_all(tmp_path)
    return tmp_path


BAD = {
    "unknown id": ("ours.json", results({**CAPTIONS, 99: "a dog"}), "entry 5: image id 99"),
    "string ids": (
        "ours.json",
        [{"image_id": str(key), "caption": text} for key, text in CAPTIONS.items()],
        "entry 1: '1'",
    ),
    "duplicate ids": (
        "ours.json",
        [*results(CAPTIONS), *results({3: "a bus"})],
        "occur twice (line 1, entry 5: image id 3)",
    ),
    "empty caption": ("ours.json", results({**CAPTIONS, 3: "  "}), "entry 3: image id 3"),
    "no caption at all": ("ours.json", [], "no caption"),
    "NaN": ("ours.json", '[{"image_id": 1, "caption": NaN}]', "entry 1: image id 1, NaN"),
    "wrong format": ("ours.json", {"captions": CAPTIONS}, "'imgToEval'"),
    "annotations as predictions": ("ours.json", caption_file(), "COCO annotation file"),
    "torn predictions": ("ours.json", json.dumps(results(CAPTIONS))[:-20], "line 1"),
    "no reference": ("captions.json", caption_file({**REFERENCES, 3: []}), "image ids 3"),
    "empty reference": ("captions.json", caption_file({**REFERENCES, 3: [" "]}), "image id 3"),
    "string ids of pictures": (
        "captions.json",
        json.dumps(caption_file()).replace('"id": 2, "file', '"id": "2", "file'),
        "'2'",
    ),
    "pictures twice": (
        "captions.json",
        {**caption_file(), "images": caption_file()["images"] * 2},
        "occur twice (1, 2, 3",
    ),
    "NaN reference": (
        "captions.json",
        '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": NaN}]}',
        "image id 1",
    ),
    "no picture": ("captions.json", {"images": [], "annotations": []}, "no picture"),
    "list for annotations": ("captions.json", results(CAPTIONS), "begins with '{'"),
    "torn annotations": ("captions.json", json.dumps(caption_file())[:-20], "captions.json"),
    "no images table": ("captions.json", {"annotations": []}, "no list 'images'"),
    "reference of no picture": (
        "captions.json",
        {**caption_file(), "annotations": [{"image_id": 77, "caption": "a dog"}]},
        "image id 77",
    ),
    "instances lack a picture": ("instances.json", instance_file({1: ["horse"], 2: [], 3: []}), "image id 4"),
    "NaN box": ("instances.json", json.dumps(instance_file()).replace("[1, 1, 9, 9]", "[1, NaN, 9, 9]", 1), "object 0"),
    "unknown category": (
        "instances.json",
        json.dumps(instance_file()).replace('"category_id": 1,', '"category_id": 55,'),
        "55",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_its_place(name: str) -> None:
    file, content, place = BAD[name]
    write(Path(file), content)
    message = refusal(*FILES, "--chair", "--metrics", "bleu", "--out", "scores")
    assert file.split(".")[0] in message
    assert place in message
    assert "Expected" in message
    assert not Path("scores").exists()


@pytest.mark.parametrize(
    "file", ["ours.json", "captions.json", "instances.json", "theirs.json", "list.txt", "words.txt"]
)
def test_a_hundred_megabytes_of_junk_are_refused(file: str) -> None:
    write(Path("list.txt"), "1 2 3 4")
    write(Path("words.txt"), "dog, puppy\nhorse\nman")
    with Path(file).open("wb") as stream:
        for _ in range(100):
            stream.write(b"junk" * 2**18)
    options = ("--compare", "theirs.json", "--images", "list.txt", "--lexicon", "words.txt")
    assert file in refusal(*FILES, "--chair", *options)


def test_captions_and_references_without_words_are_said() -> None:
    """Marks alone score 0 like an empty caption, and a picture with references of marks alone has no reference."""
    write(Path("ours.json"), results({**CAPTIONS, 2: "..."}))
    assert "1 captions hold no word (image ids 2)" in report(*FILES, "--chair")["notes"][0]
    write(Path("captions.json"), caption_file({**REFERENCES, 3: ["?", ". ."]}))
    message = refusal(*FILES, "--metrics", "bleu")
    assert "no reference caption with a word in it (image ids 3)" in message


def test_pictures_without_any_object_are_said() -> None:
    """All that is named in them would be a hallucination, and nobody would know why."""
    write(Path("instances.json"), instance_file({**OBJECTS, 3: []}))
    options = (*FILES, "--chair", "--truth", "instances")
    assert "1 of 4 pictures have no object in their ground truth (image ids 3)" in report(*options)["notes"][0]
    write(Path("instances.json"), instance_file({number: [] for number in OBJECTS}))
    assert "None of the 4 pictures of 'captions' has an object in its ground truth (instances)" in refusal(*options)
    result = invoke("--predictions", "ours.json", "--captions", "captions.json", *PYTHON_BLEU)
    assert result.exit_code == 0


def test_nobody_asked_for_objects_that_are_not_there() -> None:
    write(Path("captions.json"), caption_file({number: ["the sky is blue"] for number in REFERENCES}))
    result = invoke("--predictions", "ours.json", "--captions", "captions.json", "--set", "tokenizer=python", "--json")
    assert result.exit_code == 0
    assert "objects are not measured" in result.stderr
    assert "chair_i" not in json.loads(result.stdout)["overall"]


def test_missing_files_are_named() -> None:
    for file in ("ours.json", "captions.json", "instances.json"):
        content = Path(file).read_text()
        Path(file).unlink()
        message = refusal(*FILES, "--chair")
        assert file in message
        assert "capxai prepare" not in message  # these files are the user's own
        Path(file).write_text(content)
    assert "none.json" in refusal(*FILES, "--chair", "--compare", "none.json")
    assert "none.txt" in refusal(*FILES, "--chair", "--images", "none.txt")
    assert "none.txt" in refusal(*FILES, "--chair", "--lexicon", "none.txt")


def test_comparison_needs_the_same_pictures() -> None:
    write(Path("theirs.json"), results({number: OTHERS[number] for number in (1, 2, 4)}))
    message = refusal(*FILES, "--chair", "--compare", "theirs.json")
    assert "lacks 1 pictures (image ids 3)" in message
    write(Path("list.txt"), "[1,\n2, 4]")
    assert len(report(*FILES, "--chair", "--compare", "theirs.json", "--images", "list.txt")["images"]) == 3
    write(Path("ours.json"), results({number: CAPTIONS[number] for number in (1, 2)}))
    message = refusal(*FILES, "--chair", "--compare", "theirs.json", "--partial")
    assert "1 further pictures (image ids 4)" in message


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("1 2 x", "entry 3: 'x'"),
        ("1 2 1", "occur twice (entry 3: 1)"),
        ("", "no image id"),
        ("1 99", "image ids 99"),
        ("-1", "'-1'"),
    ],
)
def test_image_lists_are_checked(content: str, place: str) -> None:
    write(Path("list.txt"), content)
    assert place in refusal(*FILES, "--chair", "--images", "list.txt")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--metrics", "none"), "No metric was chosen"),
        (("--metrics", "ciderr"), "Did you mean 'cider'?"),
        (("--metrics", "none,cider"), "none alone"),
        (("--chair", "--truth", "reference"), "Did you mean 'references'?"),
        (("--chair", "--frequent", "paper"), "paper-coco"),
        (("--chair", "--html"), "--out"),
        (("--chair", "--model", "m"), "--model and --predictions"),
        (("--chair", "--corpus", "c"), "--corpus was given beside"),
        (("--chair", "--features", "f.h5"), "--features was given beside"),
        (("--metrics", "bleu", "--truth", "instances"), "--chair beside"),
        (("--chair", "--set", "draws=0"), "draws is 0"),
        (("--chair", "--set", "tokenizer=ptb"), "Unknown tokenizer"),
        (("--chair", "--beam", 5, "--set", "maximum_length=9"), "beam = 5, maximum_length = 9 would change nothing"),
        (("--chair", "--split", "val"), "split = val would change nothing, since annotation files have no splits"),
        (("--chair", "--pictures", "pictures"), "pictures = pictures would change nothing"),
        (("--chair", "--force"), "force = True would change nothing"),
        (("--chair", "--pictures", "none", "--out", "scores"), "There is no folder 'none'"),
        (("--chair", "--set", "size=7"), "size = 7 would change nothing"),
        (("--chair", "--set", "java_memory=4G"), "java_memory = 4G would change nothing"),
        (("--metrics", "bleu", "--set", "java_memory=lots"), "The memory of Java is 'lots'"),
    ],
)
def test_settings_that_cannot_be_used(options: tuple[str, ...], part: str) -> None:
    assert part in refusal(*FILES, *options)


def test_a_model_needs_the_pictures_of_annotation_files() -> None:
    assert "--pictures" in refusal("--captions", "captions.json", "--chair")
    assert "--predictions" in refusal("--chair", "--partial")
    for options in (("--metrics", "cider"), ("--chair", "--frequent", "paper-coco"), ("--truth", "both")):
        assert "--captions" in refusal("--predictions", "ours.json", "--instances", "instances.json", *options)
    message = refusal("--predictions", "ours.json", "--captions", "captions.json", "--truth", "both")
    assert "--instances" in message


def test_a_device_that_nothing_uses_is_said() -> None:
    result = invoke(*FILES, "--chair", "--device", "cpu")
    assert result.exit_code == 0
    assert "The device 'cpu' is not used" in result.stderr


def test_names_of_metrics_may_be_written_large() -> None:
    result = invoke(*FILES, "--metrics", "BLEU, ROUGE-L", "--set", "tokenizer=python", "--json")
    assert set(json.loads(result.stdout)["overall"]) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"}
    assert "No metric was chosen" not in refusal(*FILES, "--metrics", "blue")  # one mistake, one message


def test_several_processes_have_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "without torchrun" in refusal(*FILES, "--chair")


def test_all_problems_of_the_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        EvaluateConfig(beam=0, limit=0, metrics=("cidr",), html=True)
    for part in ("beam is 0", "limit is 0", "'cidr'", "--html"):
        assert part in str(caught.value)


def test_a_library_call_raises_what_the_command_prints() -> None:
    write(Path("ours.json"), results({99: "a dog"}))
    with pytest.raises(CorpusError, match="image id 99"):
        run(EvaluateConfig(predictions=Path("ours.json"), captions=Path("captions.json"), chair=True))
