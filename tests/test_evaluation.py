"""``capxai eval`` on files: figures by hand, intervals, files, reproducibility and comparison."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from evaluation_command import FILES, PYTHON_BLEU, invoke, refusal, report
from evaluation_files import CAPTIONS, REFERENCES, caption_file, instance_file, results, write, write_all
from pycocoevalcap.bleu.bleu import Bleu

from capxai.evaluate.bootstrap import draws
from capxai.recipes.evaluate import EvaluateConfig, run


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with annotation files, predictions and pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_all(tmp_path)
    return tmp_path


def table(path: str) -> list[dict[str, str]]:
    """Read a CSV file."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_chair_by_hand() -> None:
    found = report(*FILES, "--chair", "--truth", "instances")
    overall = found["overall"]
    # man, horse, DOG; dogs, CAT; bus; sandwich, fork
    assert overall["chair_i"]["value"] == pytest.approx(2 / 8)
    assert overall["chair_s"]["value"] == pytest.approx(2 / 4)
    assert overall["objects_per_caption"]["value"] == pytest.approx(8 / 4)
    for figure in overall.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    first = found["images"][0]
    assert first["image_id"] == 1
    assert first["caption"] == CAPTIONS[1]
    assert first["references"] == REFERENCES[1]
    assert first["objects"] == ["horse", "person"]
    assert (first["hallucinated"], first["hallucinated_words"], first["hallucinated_positions"]) == (
        ["dog"],
        ["dog"],
        [7],
    )
    assert found["categories"]["dog"]["hallucinations"] == 1
    assert not {"bleu_1", "cider"} & set(overall)


def test_truth_is_what_is_asked_for() -> None:
    # The references name no fork and no car, the instances do.
    both, instances, references = (
        report(*FILES, "--chair", "--truth", truth) for truth in ("both", "instances", "references")
    )
    assert [found["images"][3]["hallucinated"] for found in (both, instances, references)] == [[], [], ["fork"]]
    assert [found["provenance"]["truth"] for found in (both, instances, references)] == [
        "both",
        "instances",
        "references",
    ]
    assert (
        report("--predictions", "ours.json", "--captions", "captions.json", "--chair")["provenance"]["truth"]
        == "references"
    )
    alone = report("--predictions", "ours.json", "--instances", "instances.json")
    assert alone["provenance"]["truth"] == "instances"
    assert alone["overall"].keys() == instances["overall"].keys()


def test_the_table_has_intervals_and_says_what_is_better() -> None:
    result = invoke(*FILES, "--chair", "--compare", "theirs.json", "--frequent", "corpus")
    assert result.exit_code == 0, result.output
    lines: dict[str, str] = {}
    for line in result.stdout.splitlines():
        lines.setdefault(line.split("  ")[0], line)
    assert "0.2500" in lines["CHAIRi"] and "lower is better" in lines["CHAIRi"]
    assert "Compared with theirs.json, paired" in result.stdout
    assert "frequent-object F1" in lines
    assert lines["dog"].split()[-1] == "1"
    assert "Most frequent confusions" in result.stdout
    assert re.search(r"^cat +frisbee +1 ", result.stdout, re.M)


def test_a_run_from_its_own_files_gives_the_same_numbers() -> None:
    """The saved predictions and image list are all that is needed besides the annotations."""
    whole = report(*FILES, "--limit", 3, "--out", "first", "--metrics", "bleu,rouge-l,cider", "--chair")
    again = report(
        "--predictions", "first/predictions.json", "--images", "first/images.txt", *FILES[2:],
        "--metrics", "bleu,rouge-l,cider", "--chair",
    )  # fmt: skip
    assert whole["overall"] == again["overall"]
    assert whole["images"] == again["images"]
    for name in ("image_list_sha256", "predictions_sha256", "lexicon_sha256", "objects_sha256", "tokenizer"):
        assert whole["provenance"][name] == again["provenance"][name]
    assert [image["image_id"] for image in whole["images"]] == [1, 2, 3]
    assert json.loads(Path("first/eval.json").read_text("utf-8")) == whole


def test_the_seed_changes_intervals_and_nothing_else() -> None:
    first, other = (report(*FILES, "--chair", "--seed", seed)["overall"] for seed in (0, 1))
    assert {name: figure["value"] for name, figure in first.items()} == {
        name: figure["value"] for name, figure in other.items()
    }
    assert first != other


def test_caption_metrics_by_hand() -> None:
    """BLEU-1 of a corpus: the matched words of all captions over all their words, times the brevity penalty."""
    write(Path("ours.json"), results({1: "a man riding a cow", 2: "two dogs playing", 3: "the bus", 4: "a sandwich"}))
    options = ("--metrics", "bleu,rouge-l", "--set", "tokenizer=python")
    found = report(*FILES, *options)
    # 4 + 3 + 2 + 2 of 5 + 3 + 2 + 2 words; references nearest in length have 7 ("a person on ... sea": 7, 8), 7, 8 and 6 words
    precision, penalty = 11 / 12, math.exp(1 - (7 + 7 + 8 + 6) / 12)
    assert found["overall"]["bleu_1"]["value"] == pytest.approx(precision * penalty)
    assert set(found["overall"]) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"}
    assert found["images"][1]["metrics"]["bleu_1"] == pytest.approx(math.exp(1 - 7 / 3))
    mean = sum(image["metrics"]["rouge_l"] for image in found["images"]) / 4
    assert found["overall"]["rouge_l"]["value"] == pytest.approx(mean)
    assert found["provenance"]["tokenizer"] == "python"


def test_corpus_bleu_is_drawn_as_a_corpus() -> None:
    """Each draw sums the statistics of its pictures; the mean of per-picture BLEU would be another number."""
    found = run(
        EvaluateConfig(
            predictions=Path("ours.json"),
            captions=Path("captions.json"),
            metrics=("bleu",),
            tokenizer="python",
            draws=7,
        )
    )
    weights = draws(4, 0, 7)
    slow = [_bleu_of(row.tolist()) for row in weights]
    assert found.overall["bleu_2"] is not None
    low, high = np.percentile(slow, (2.5, 97.5))
    assert found.overall["bleu_2"].low == pytest.approx(low)
    assert found.overall["bleu_2"].high == pytest.approx(high)


def _bleu_of(counts: list[int]) -> float:
    """BLEU-2 by pycocoevalcap of every picture as often as it was drawn."""
    ids = [number for number, count in zip(CAPTIONS, counts, strict=True) for _ in range(count)]
    references = {place: REFERENCES[number] for place, number in enumerate(ids)}
    captions = {place: [CAPTIONS[number]] for place, number in enumerate(ids)}
    scores, _ = Bleu(4).compute_score(references, captions, verbose=0)
    return float(scores[1])


def test_metrics_that_cannot_run_are_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    found = report(*FILES, "--metrics", "all", "--chair")
    assert set(found["skipped"]) == {"meteor", "spice"}
    assert all("Java" in reason for reason in found["skipped"].values())
    assert {"bleu_4", "rouge_l", "cider", "chair_i"} <= set(found["overall"])
    assert "meteor" not in found["overall"]
    shown = invoke(*FILES, "--out", "scores", "--html")
    assert "Not run" in shown.stdout and "meteor" in shown.stdout
    assert "not run: " in Path("scores/eval.html").read_text()
    assert "None of the metrics can run" in refusal(*FILES, "--metrics", "meteor")


def test_what_runs_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # starting METEOR takes seconds
    options = ("--set", "tokenizer=python")
    assert {"cider", "chair_i"} <= set(report(*FILES, *options)["overall"])
    assert not {"cider"} & set(report(*FILES, "--chair")["overall"])
    assert not {"chair_i"} & set(report(*FILES, *options, "--metrics", "cider")["overall"])
    assert not {"chair_i"} & set(report(*FILES, *options, "--no-chair")["overall"])
    assert "CIDEr" in " ".join(report(*FILES, *options)["notes"])  # four pictures say nothing about rare words


def test_files_of_a_report() -> None:
    report(*FILES, "--pictures", "pictures", "--chair", "--metrics", "cider", "--out", "scores", "--html")
    assert {file.name for file in Path("scores").iterdir()} == {
        "eval.json", "eval.csv", "categories.csv", "predictions.json", "images.txt", "eval.html",
    }  # fmt: skip
    assert json.loads(Path("scores/predictions.json").read_text()) == results(CAPTIONS)
    assert Path("scores/images.txt").read_text() == "1\n2\n3\n4\n"
    rows = table("scores/eval.csv")
    assert [row["image_id"] for row in rows] == ["1", "2", "3", "4"]
    assert (rows[0]["caption"], rows[0]["hallucinated"], rows[0]["mentioned"]) == (
        CAPTIONS[1],
        "dog",
        "person; horse; dog",
    )
    categories = {row["category"]: row for row in table("scores/categories.csv")}
    assert (categories["cat"]["precision"], categories["cat"]["recall"], categories["cat"]["hallucinations"]) == (
        "0.0",
        "",
        "1",
    )
    provenance = json.loads(Path("scores/eval.json").read_text())["provenance"]
    assert set(provenance["versions"]) >= {"capxai", "torch", "pycocoevalcap"}
    assert provenance["bootstrap"] == {"draws": 1000, "seed": 0}


def test_a_page_is_written_unless_it_is_not_wanted() -> None:
    report(*FILES, "--chair", "--out", "with")
    report(*FILES, "--chair", "--out", "without", "--no-html")
    assert Path("with/eval.html").is_file() and not Path("without/eval.html").exists()


def test_a_folder_never_holds_files_of_two_evaluations() -> None:
    """With --force the tables and the page of the evaluation before would stay beside other figures."""
    report(*FILES, "--chair", "--out", "scores")
    report(*FILES, *PYTHON_BLEU, "--out", "scores", "--no-html", "--force")
    assert {file.name for file in Path("scores").iterdir()} == {
        "eval.json", "eval.csv", "predictions.json", "images.txt",
    }  # fmt: skip
    Path("page").mkdir()
    Path("page/eval.html").write_text("of another one")
    assert "eval.html" in refusal(*FILES, "--chair", "--no-html", "--out", "page")


def test_tables_fit_a_terminal_and_have_the_frequent_words() -> None:
    write(Path("ours.json"), results({**CAPTIONS, 1: "a baseball glove, a parking meter and a man"}))
    result = invoke(*FILES, "--chair", "--frequent", "paper-coco", "--compare", "theirs.json", "--out", "scores")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert re.search(r"^man +1\.0000 +1\.0000 +1\.0000 +1 +1 *$", result.stdout, re.M)
    assert "Frequent words</h2>" in Path("scores/eval.html").read_text()


def test_existing_outputs_are_kept() -> None:
    report(*FILES, "--chair", "--out", "scores")
    before = Path("scores/eval.json").read_bytes()
    message = refusal(*FILES, "--chair", "--out", "scores", "--seed", 5)
    assert "eval.json" in message and "--force" in message
    assert Path("scores/eval.json").read_bytes() == before
    report(*FILES, "--chair", "--out", "scores", "--seed", 5, "--force")
    assert Path("scores/eval.json").read_bytes() != before


def test_formulas_do_not_reach_a_spreadsheet() -> None:
    write(Path("ours.json"), results({**CAPTIONS, 1: "=1+1 dogs"}))
    report(*FILES, "--chair", "--out", "scores")
    assert table("scores/eval.csv")[0]["caption"] == "'=1+1 dogs"


def test_comparison_is_paired_and_turns_around() -> None:
    ours = report(*FILES, "--chair", "--compare", "theirs.json")["comparison"]
    theirs = report("--predictions", "theirs.json", *FILES[2:], "--chair", "--compare", "ours.json")["comparison"]
    assert ours["other"] == "theirs.json"
    for name, figure in ours["overall"].items():
        assert figure["difference"] == pytest.approx(figure["this"] - figure["other"])
        assert theirs["overall"][name]["difference"] == pytest.approx(-figure["difference"])
        assert theirs["overall"][name]["p"] == figure["p"]
    # DOG, CAT of eight against TRAIN of six
    assert ours["overall"]["chair_i"]["difference"] == pytest.approx(2 / 8 - 1 / 6)
    itself = report(*FILES, "--chair", "--compare", "ours.json")["comparison"]["overall"]["chair_i"]
    assert (itself["difference"], itself["low"], itself["high"], itself["p"]) == (0, 0, 0, 1)


def test_captions_without_objects_have_no_chair_i() -> None:
    write(Path("ours.json"), results(dict.fromkeys(CAPTIONS, "a nice photo")))
    found = report(*FILES, "--chair")
    assert found["overall"]["chair_i"] is None
    assert "CHAIRi is not defined" in found["notes"][0]
    result = invoke(*FILES, "--chair", "--html", "--out", "scores")
    assert result.exit_code == 0
    assert "not defined" in Path("scores/eval.html").read_text()


def test_empty_captions_are_said_where_they_are_allowed() -> None:
    write(Path("ours.json"), results({**CAPTIONS, 2: ""}))
    assert "image id 2" in refusal(*FILES, "--chair")
    found = report(*FILES, "--chair", "--allow-empty")
    assert found["images"][1]["mentioned"] == []
    assert "1 captions are empty (image ids 2)" in found["notes"][0]


def test_partial_measures_what_has_a_caption() -> None:
    write(Path("ours.json"), results({number: CAPTIONS[number] for number in (4, 2)}))
    message = refusal(*FILES, "--chair")
    assert "no caption for 2 of 4 pictures (image ids 1, 3)" in message and "--partial" in message
    assert [image["image_id"] for image in report(*FILES, "--chair", "--partial")["images"]] == [2, 4]


def test_an_instance_file_may_know_more_pictures() -> None:
    write(Path("captions.json"), caption_file({number: REFERENCES[number] for number in (2, 3)}))
    write(Path("ours.json"), results({number: CAPTIONS[number] for number in (2, 3)}))
    result = invoke(*FILES, "--chair")
    assert result.exit_code == 0
    assert "2 further pictures" in result.stderr


def test_a_list_of_the_original_chair_can_be_read() -> None:
    write(Path("words.txt"), "person, man\nhorse\ndog, puppy\ncat\nbus\nsandwich\nfork\n")
    found = report(*FILES, "--chair", "--lexicon", "words.txt", "--truth", "instances")
    assert found["overall"]["chair_i"]["value"] == pytest.approx(2 / 8)
    assert found["provenance"]["lexicon_sha256"] != report(*FILES, "--chair")["provenance"]["lexicon_sha256"]


@pytest.mark.slow
def test_five_thousand_captions_in_a_minute() -> None:
    """5,000 captions, 25,000 references, BLEU, ROUGE-L, CIDEr and CHAIR with 1,000 draws."""
    generator = random.Random(0)
    words = [word for texts in REFERENCES.values() for text in texts for word in text.split()]
    words += [f"word{number}" for number in range(5000)]

    def sentence() -> str:
        return " ".join(generator.choice(words) for _ in range(generator.randint(7, 14)))

    write(Path("captions.json"), caption_file({number: [sentence() for _ in range(5)] for number in range(5000)}))
    names = ("person", "dog", "bus", "cat", "fork")
    write(Path("instances.json"), instance_file({number: generator.sample(names, 3) for number in range(5000)}))
    write(Path("ours.json"), results({number: sentence() for number in range(5000)}))
    started = time.perf_counter()
    found = report(*FILES, "--chair", "--metrics", "bleu,rouge-l,cider", "--out", "scores")
    assert time.perf_counter() - started < 60
    assert found["provenance"]["bootstrap"]["draws"] == 1000
    assert {"bleu_4", "rouge_l", "cider", "chair_i"} <= set(found["overall"])
