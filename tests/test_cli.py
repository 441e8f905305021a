"""The command line: what is parsed, printed and written, and how it fails."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from tiny_captioner import WORDS, tiny_captioner
from typer.testing import CliRunner, Result

import capxai
from capxai.cli.main import app
from capxai.cli.reporter import RichReporter
from capxai.data.scenes import P_BIAS, PAIRS
from capxai.models.folder import save_model
from capxai.recipes.explain import picture_folders

FILES = {"explanation.npz", "explanation.json", "explanation.png", "explanation.html", "run.json"}
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_captioner(), folder)
    return folder


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with three pictures, one of which is none."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save("one.png")
    Image.fromarray(noise[::-1].copy()).save("two.png")
    Path("bad.jpg").write_text("no picture")
    return tmp_path


def invoke(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


def verbs() -> list[list[str]]:
    """All verbs, with their subcommands, as typed."""
    group = typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        nested = getattr(command, "commands", None)
        found += [[name]] if nested is None else [[name, inner] for inner in nested]
    return found


def test_help_names_every_verb() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for verb in verbs():
        assert verb[0] in result.stdout


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_has_an_example_that_names_it(verb: list[str]) -> None:
    result = invoke(*verb, "--help")
    assert result.exit_code == 0
    _, marker, end = result.stdout.partition("Example")
    assert marker
    assert f"capxai {' '.join(verb)}" in end


def test_the_help_of_analyze_names_every_experiment() -> None:
    result = invoke("analyze", "--help")
    assert result.exit_code == 0
    experiments = [verb[1] for verb in verbs() if verb[0] == "analyze"]
    assert {"ablation", "correctness", "hallucination", "faithfulness", "randomization"} <= set(experiments)
    for name in experiments:
        assert re.search(rf"^│ {name} +[A-Z]", result.stdout, re.M)


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_example_can_be_typed(verb: list[str]) -> None:
    """Nothing is run: the words are parsed, and an option that there is not is a usage error."""
    for line in _command(verb).epilog.splitlines():
        if not line.startswith("capxai "):
            continue
        words = shlex.split(line.partition(" > ")[0])[1:]
        own = max((one for one in verbs() if words[: len(one)] == one), key=len)
        context = _command(own).make_context(own[-1], words[len(own) :])
        assert all("=" in setting for setting in context.params.get("settings") or ())


def _command(verb: list[str]) -> Any:
    found: Any = typer.main.get_command(app)
    for name in verb:
        found = found.commands[name]
    return found


def test_paragraphs_of_a_help_break_at_the_terminal() -> None:
    text = invoke("analyze", "faithfulness", "--help").stdout
    start = text.index("The model captions")
    lines = text[start : text.index("╭", start)].rstrip().splitlines()
    assert len(lines) > 2 and all(len(line.rstrip()) > 60 for line in lines[:-1])


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_takes_the_common_options(verb: list[str]) -> None:
    text = invoke(*verb, "--help").stdout
    for option in ("--json", "--quiet", "--debug"):
        assert option in text


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"capxai {capxai.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["explain"], ["explain", "--no-such"], ["no-such"], ["explain", "x.jpg", "--beam", "0"]]
)
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_explain_writes_a_folder_and_prints_a_table(model: Path) -> None:
    result = invoke("explain", "one.png", "--model", model)
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("explanations/one").iterdir()} == FILES
    record = json.loads(Path("explanations/one/run.json").read_text())
    assert record["config"]["method"] == "lrp"
    assert record["config"]["images"] == ["one.png"]
    assert (record["seed"], record["device"]) == (0, "cpu" if not torch.cuda.is_available() else "cuda:0")
    caption = json.loads(Path("explanations/one/explanation.json").read_text())["caption"]
    assert f"one.png: {caption}" in result.stdout
    assert re.search(r"word +probability +picture +words +bias +eps", result.stdout)
    assert len(re.findall(r"^\w+ +\d\.\d{3}( +[+-]\d[\d.]*%){4} *$", result.stdout, re.M)) == len(caption.split())
    assert str(Path("explanations/one/explanation.html")) in result.stdout
    assert f"Model: {model}; method: lrp; device: " in result.stderr
    assert "Warning: This model knows nothing but noise." in result.stderr
    assert "\x1b" not in result.output


def test_explain_a_given_caption_as_json(model: Path) -> None:
    result = invoke("explain", "one.png", "--model", model, "--caption", "A red car.", "--json", "--quiet")
    report = json.loads(result.stdout)
    assert report["pictures"][0]["explanation"]["caption"] == "a red car"
    assert "Model:" not in result.stderr


def test_one_bad_picture_does_not_stop_the_others(model: Path) -> None:
    result = invoke("explain", "one.png", "bad.jpg", "two.png", "--model", model, "--method", "attention")
    assert result.exit_code == 1
    assert Path("explanations/two/explanation.html").is_file()
    assert not Path("explanations/bad").exists()
    assert "1 of 3 pictures failed" in result.stderr
    assert "Error: 'bad.jpg' is not a picture that capxai can read." in result.stderr
    assert "Traceback" not in result.output


def test_a_single_bad_picture_gives_one_sentence_of_error(model: Path) -> None:
    result = invoke("explain", "bad.jpg", "--model", model, "--quiet")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: 'bad.jpg' is not a picture")
    assert "pictures failed" not in result.stderr


def test_an_explanation_is_kept_unless_forced(model: Path) -> None:
    arguments = ("explain", "one.png", "--model", model, "--method", "random", "--quiet")
    assert invoke(*arguments, "--seed", 1).exit_code == 0
    before = Path("explanations/one/explanation.npz").read_bytes()
    refused = invoke(*arguments, "--seed", 2)
    assert refused.exit_code == 1
    assert "already holds an explanation" in refused.stderr
    assert "--force" in refused.stderr
    assert Path("explanations/one/explanation.npz").read_bytes() == before
    assert invoke(*arguments, "--seed", 2, "--force").exit_code == 0
    assert Path("explanations/one/explanation.npz").read_bytes() != before


def test_pictures_of_one_name_get_folders_of_their_own() -> None:
    images = tuple(map(Path, ("a/x.jpg", "b/x.png", "x-2.jpg", "c/x.jpg")))
    assert [folder.name for folder in picture_folders(images, Path("out"))] == ["x", "x-2", "x-2-2", "x-3"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method", "lpr"], "Unknown method 'lpr'. Choose one of: lrp, "),
        (["--method", "lpr"], "Did you mean 'lrp'?"),
        (["--caption", "a red motorbike"], "motorbike"),
        (["--caption", "!"], "Error: "),
        (["--device", "tpu"], "Unknown device 'tpu'. Choose one of: auto, cpu"),
        (["--device", "cuda:97"], "--device cpu"),
        (["--head", "first"], "The head 'first' was asked for."),
        (["--scale", "log"], "one of: caption, word"),
        (["--set", "methd=lrp"], "Did you mean 'method'?"),
        (["--config", "missing.toml"], "'missing.toml'"),
        (["--eps", "-1"], "eps is -1"),
    ],
)
def test_what_concerns_all_pictures_is_one_message(model: Path, arguments: list[str], expected: str) -> None:
    result = invoke("explain", "one.png", "--model", model, *arguments)
    assert result.exit_code == 1
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert not Path("explanations").exists()


def test_a_model_that_is_not_there() -> None:
    result = invoke("explain", "one.png", "--model", "runs/none")
    assert result.exit_code == 1
    assert "There is no model folder 'runs/none'." in result.stderr


def test_typed_options_go_before_set_and_set_before_the_file(model: Path) -> None:
    Path("settings.toml").write_text('method = "gradient"\nbeam = 1\nout = "from-file"\n')
    result = invoke(
        "explain", "one.png", "--model", model, "--config", "settings.toml", "--set", "beam=2", "--method", "attention"
    )
    assert result.exit_code == 0, result.output
    config = json.loads(Path("from-file/one/run.json").read_text())["config"]
    assert (config["method"], config["beam"], config["out"]) == ("attention", 2, "from-file")


def test_caption_prints_a_line_for_each_picture(model: Path) -> None:
    result = invoke("caption", "one.png", "bad.jpg", "two.png", "--model", model, "--quiet")
    assert result.exit_code == 1
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["one.png", "two.png"]
    assert all(set(line[1].split()) <= set(WORDS) for line in lines)
    assert "Error: 'bad.jpg'" in result.stderr


def test_captions_do_not_depend_on_the_batch(model: Path) -> None:
    pictures = ("one.png", "bad.jpg", "two.png", "one.png")
    together = json.loads(invoke("caption", *pictures, "--model", model, "--json").stdout)
    alone = json.loads(invoke("caption", *pictures, "--model", model, "--json", "--set", "batch_size=1").stdout)
    assert together == alone
    assert [picture["image"] for picture in together["pictures"]] == ["one.png", "two.png", "one.png"]


def test_caption_and_explain_agree(model: Path) -> None:
    captioned = json.loads(invoke("caption", "one.png", "--model", model, "--json").stdout)
    explained = json.loads(invoke("explain", "one.png", "--model", model, "--method", "attention", "--json").stdout)
    assert captioned["pictures"][0]["caption"] == explained["pictures"][0]["explanation"]["caption"]


def test_prepare_scenes() -> None:
    result = invoke("prepare", "scenes", "--out", "corpus", "--size", 8, "--seed", 5, "--quiet")
    assert result.exit_code == 0, result.output
    assert re.search(r"train +8 +40 ", result.stdout)
    assert json.loads(Path("corpus/run.json").read_text())["seed"] == 5
    again = invoke("prepare", "scenes", "--out", "corpus", "--size", 8)
    assert again.exit_code == 1
    assert "--force" in again.stderr


def test_analyze_correctness_and_eval_of_a_model_that_says_one_word() -> None:
    assert invoke("prepare", "scenes", "--out", "corpus", "--size", 8).exit_code == 0
    instances = json.loads(Path("corpus/annotations/instances_test.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    word = next(
        names[item["category_id"]] for item in instances["annotations"] if " " not in names[item["category_id"]]
    )
    save_model(tiny_captioner(favorite=word), Path("one-word"))
    options = ("--model", "one-word", "--corpus", "corpus")

    analyzed = invoke(
        "analyze", "correctness", *options, "--method", "grad-cam", "--method", "random", "--out", "analysis"
    )
    assert analyzed.exit_code == 0, analyzed.output
    assert re.search(r"^grad-cam +\d", analyzed.stdout, re.M)
    assert re.search(r"^random +\d", analyzed.stdout, re.M)
    assert "in mask" in analyzed.stdout
    assert json.loads(Path("analysis/run.json").read_text())["config"]["method"] == ["grad-cam", "random"]

    evaluated = invoke("eval", "--chair", *options)
    assert evaluated.exit_code == 0, evaluated.output
    assert re.search(rf"^{word} +\d", evaluated.stdout, re.M)


def test_import_checkpoint_names_what_is_missing() -> None:
    arguments = ("import-checkpoint", "--checkpoint", "none.pth", "--wordmap", "none.json", "--out", "m")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert "none." in result.stderr
    assert invoke("import-checkpoint", "--out", "m").exit_code == 2


def test_debug_shows_where_an_error_came_from() -> None:
    result = invoke("explain", "one.png", "--model", "runs/none", "--debug")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "\nError: There is no model folder" in result.stderr


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("capxai.recipes.explain.run", fails)
    return invoke("explain", "one.png")


def test_an_internal_error_points_to_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _fail_with(monkeypatch, ZeroDivisionError("by [zero]"))
    assert result.exit_code == 1
    assert "Internal error: ZeroDivisionError: by [zero]." in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.output


def test_an_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    result = _fail_with(monkeypatch, KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_the_reporter_writes_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter()
    reporter.note("a [note]")
    reporter.warn("a [warning]")
    with reporter.track("work", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "a [note]\nWarning: a [warning]\n")


def test_a_quiet_reporter_still_warns(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = RichReporter(quiet=True)
    reporter.note("nobody reads this")
    reporter.warn("look")
    assert capsys.readouterr() == ("", "Warning: look\n")


def test_progress_bars_may_be_nested_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    reporter = RichReporter()
    with reporter.track("epochs", 2) as outer:
        for _ in range(2):
            with reporter.track("batches", 5) as inner:
                inner(5)
            outer(1)
    with pytest.raises(ValueError, match="broken"), reporter.track("again", 1):
        raise ValueError("broken")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epochs" in captured.err


def test_explain_is_a_function_and_a_package(model: Path) -> None:
    loaded = capxai.load(model)
    assert "explain" in dir(capxai)
    first = capxai.explain(loaded, "one.png", method="attention")
    from capxai.explain.methods import METHODS

    assert "lrp" in METHODS
    second = capxai.explain(loaded, "one.png", method="attention")
    assert first.caption == second.caption
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        capxai.explian  # noqa: B018


def test_the_data_description_states_the_planted_bias() -> None:
    text = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text()
    assert f"with probability {P_BIAS:g}." in text
    described = " ".join(text.split())
    for first, second in PAIRS:
        assert f"{first} and {second}" in described
