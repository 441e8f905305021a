"""The built-in corpus: rendering, planted bias, captions, and the COCO files."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from capxai.data.scenes import CATEGORIES, P_BIAS, PAIRS, SPLITS, render_picture, sample_layout, write_corpus
from capxai.data.scenes import picture as picture_module
from capxai.data.scenes.categories import BY_NAME, COLORS
from capxai.data.scenes.contrast import color_distance
from capxai.data.scenes.layout import MINIMUM_CONTRAST, Layout
from capxai.data.scenes.picture import LEAST_VISIBLE
from capxai.errors import CorpusError
from capxai.types import Advance, Show

SHARED = Path(__file__).resolve().parents[2] / "shared" / "coco-mini"
SPLIT_NAMES = ("train", "val", "test", "robust-val", "robust")
COLOR_WORDS = ["red", "green", "blue", "yellow", "white", "black", "purple", "pink", "brown", "gray"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "corpus"
    write_corpus(out, size=30, seed=3)
    return out


def _categories(layout: Layout) -> list[str]:
    return [placement.category.name for placement in layout.placements]


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _coco(corpus: Path, kind: str, split: str) -> COCO:
    with contextlib.redirect_stdout(None):
        return COCO(str(corpus / "annotations" / f"{kind}_{split}.json"))


def test_same_seed_writes_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "again", size=30, seed=3)
    write_corpus(tmp_path / "other", size=30, seed=4)
    expected = _tree(corpus)
    assert _tree(tmp_path / "again") == expected
    other = _tree(tmp_path / "other")
    images = [name for name in expected if name.endswith(".jpg")]
    assert len(images) == 30 + 4 * 8
    assert all(other[name] != expected[name] for name in images)


def test_larger_corpus_begins_with_the_smaller_one(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "larger", size=100, seed=3)
    small, large = _tree(corpus), _tree(tmp_path / "larger")
    for name, content in small.items():
        if name.endswith(".jpg"):
            assert large[name] == content, name


def test_pictures_do_not_depend_on_the_order_of_rendering() -> None:
    forward = [render_picture(1, "robust", index) for index in range(6)]
    backward = [render_picture(1, "robust", index) for index in reversed(range(6))][::-1]
    for first, second in zip(forward, backward, strict=True):
        assert np.array_equal(first.image, second.image)
        assert first.captions == second.captions
    assert not np.array_equal(render_picture(1, "train", 0).image, render_picture(1, "test", 0).image)


def test_larger_pictures_show_the_same_objects() -> None:
    small, large = render_picture(0, "train", 2), render_picture(0, "train", 2, image_size=224)
    assert small.image.shape == (112, 112, 3) and large.image.shape == (224, 224, 3)
    assert small.captions == large.captions
    for first, second in zip(small.objects, large.objects, strict=True):
        assert np.allclose(2 * np.array(first.bbox), second.bbox, atol=4)


def test_objects_are_where_they_are_said_to_be() -> None:
    for index in range(120):
        scene = render_picture(0, "train", index)
        union = np.zeros(scene.image.shape[:2], dtype=int)
        for placed in scene.objects:
            rows, columns = np.nonzero(placed.mask)
            box = (columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)
            assert placed.bbox == box
            assert 0.6 < placed.visible <= 1
            union += placed.mask
        assert union.max() == 1, "visible masks overlap"


def test_few_objects_are_covered_and_none_by_more_than_a_third() -> None:
    covered = total = 0
    for index in range(150):
        layout, scene = sample_layout(0, "test", index), render_picture(0, "test", index)
        total += len(scene.objects)
        if layout.overlapping is not None:
            drawn, masks = picture_module._draw_all(layout, 112)
            for sprite, mask in zip(drawn, masks, strict=True):
                share = np.count_nonzero(mask) / np.count_nonzero(sprite.mask)
                assert share >= LEAST_VISIBLE
                covered += int(share < 0.99)
    assert 0.02 < covered / total < 0.15


def test_a_drawing_changes_the_picture_inside_its_mask_only() -> None:
    inside, outside = [], []
    for index in range(40):
        scene, layout = render_picture(0, "val", index), sample_layout(0, "val", index)
        difference = np.abs(scene.image.astype(float) - np.array(layout.color)).mean(axis=2)
        anything = np.logical_or.reduce([placed.mask for placed in scene.objects])
        inside.append(difference[anything].mean())
        outside.append(difference[~anything].mean())
    assert np.mean(inside) > 3 * np.mean(outside)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_second_objects_accompany_first_ones_as_planned(split: str) -> None:
    layouts = [_categories(sample_layout(0, split, index)) for index in range(1500)]
    together = sum(first in names and second in names for names in layouts for first, second in PAIRS)
    firsts = sum(first in names for names in layouts for first, _ in PAIRS)
    # About 1,200 first objects: four standard deviations of the share are 0.05.
    assert abs(together / firsts - P_BIAS) < 0.05
    for first, second in PAIRS:
        alone = [second in names for names in layouts if first not in names]
        assert 0.02 < np.mean(alone) < 0.1, second


@pytest.mark.parametrize("split", ["robust-val", "robust"])
def test_pairs_never_meet_in_parted_splits(split: str) -> None:
    layouts = [_categories(sample_layout(0, split, index)) for index in range(1500)]
    counts = Counter(name for names in layouts for name in names)
    for first, second in PAIRS:
        assert counts[first] > 100 and counts[second] > 100
        assert not any(first in names and second in names for names in layouts)


def test_splits_differ_in_nothing_but_the_pairing() -> None:
    test = [_categories(sample_layout(0, "test", index)) for index in range(1500)]
    robust = [_categories(sample_layout(0, "robust", index)) for index in range(1500)]
    sizes = [np.bincount([len(names) for names in layouts], minlength=4) / 1500 for layouts in (test, robust)]
    assert sizes[0][0] == sizes[1][0] == 0 and len(sizes[0]) == len(sizes[1]) == 4
    assert np.abs(sizes[0] - sizes[1]).max() < 0.06
    assert 2.1 < sizes[0] @ np.arange(4) < 2.5
    counts = [Counter(name for names in layouts for name in names) for layouts in (test, robust)]
    for category in CATEGORIES:
        assert abs(counts[0][category.name] - counts[1][category.name]) / 1500 < 0.05
    assert all(len(set(names)) == len(names) for names in [*test, *robust])


def test_no_object_has_the_color_of_its_background() -> None:
    for index in range(400):
        layout = sample_layout(0, "train", index)
        for placement in layout.placements:
            assert color_distance(COLORS[placement.color_word], layout.color) >= MINIMUM_CONTRAST
            assert color_distance(placement.color, layout.color) > MINIMUM_CONTRAST - 8


def test_color_distance_of_known_colors() -> None:
    assert color_distance((0, 0, 0), (255, 255, 255)) == pytest.approx(100, abs=0.1)
    # sRGB red is L* 53.2, a* 80.1, b* 67.2; sRGB green is L* 87.7, a* -86.2, b* 83.2.
    expected = ((53.2 - 87.7) ** 2 + (80.1 + 86.2) ** 2 + (67.2 - 83.2) ** 2) ** 0.5
    assert color_distance((255, 0, 0), (0, 255, 0)) == pytest.approx(expected, abs=0.3)


def test_captions_name_what_is_there_and_nothing_else() -> None:
    for index in range(150):
        scene = render_picture(0, "robust", index)
        present = {BY_NAME[placed.category].words: placed.color for placed in scene.objects}
        assert len(set(scene.captions)) == 5
        complete = 0
        for caption in scene.captions:
            named = {category.words for category in CATEGORIES if re.search(rf"\b{category.words}\b", caption)}
            assert named and named <= set(present), caption
            complete += named == set(present)
            for color, words in re.findall(rf"\b({'|'.join(COLOR_WORDS)}) ((?:traffic )?\w+)", caption):
                assert present[words] == color, caption
            if set(caption.split()) & {"on", "in", "by"}:
                assert scene.background in caption
        assert complete >= 3


def test_captions_are_plain_english_of_a_small_vocabulary() -> None:
    captions = [caption for index in range(500) for caption in render_picture(0, "train", index).captions]
    words = Counter(word for caption in captions for word in caption.split())
    assert 60 <= len(words) <= 80
    assert min(words.values()) >= 4
    assert all(re.fullmatch("[a-z]+( [a-z]+)*", caption) for caption in captions)
    assert not any(re.search(r"\ba [aeiou]|\ban [^aeiou]", caption) for caption in captions)
    lengths = [len(caption.split()) for caption in captions]
    assert 8 < np.mean(lengths) < 11 and max(lengths) <= 20


def test_words_of_the_captions_count_for_their_category_only() -> None:
    table = SHARED / "chair_synonyms.txt"
    if not table.is_file():
        pytest.skip("the synonym table of CHAIR is not here (shared/coco-mini)")
    names = {}
    for line in table.read_text(encoding="utf-8").splitlines():
        synonyms = [word.strip() for word in line.split(",")]
        names.update({word: synonyms[0] for word in synonyms if word})
    for category in CATEGORIES:
        assert names[category.words] == category.name
    own = {word for category in CATEGORIES for word in category.words.split()}
    captions = [caption for index in range(300) for caption in render_picture(0, "train", index).captions]
    others = {word for caption in captions for word in caption.split()} - own
    assert not others & set(names)


def test_categories_are_those_of_coco() -> None:
    table = SHARED / "annotations" / "instances_val2017.json"
    if not table.is_file():
        pytest.skip("the annotations of COCO are not here (shared/coco-mini)")
    known = {(item["id"], item["name"], item["supercategory"]) for item in json.loads(table.read_text())["categories"]}
    assert {(item.id, item.name, item.supercategory) for item in CATEGORIES} <= known


@pytest.mark.parametrize("split", SPLIT_NAMES)
def test_files_are_valid_coco(corpus: Path, split: str) -> None:
    instances, captions = _coco(corpus, "instances", split), _coco(corpus, "captions", split)
    manifest = json.loads((corpus / "corpus.json").read_text())["splits"][split]
    assert sorted(instances.imgs) == sorted(captions.imgs)
    assert len(instances.imgs) == manifest["pictures"] == (30 if split == "train" else 8)
    assert len(captions.anns) == manifest["captions_count"] == 5 * manifest["pictures"]
    assert len(instances.anns) == manifest["objects"]
    assert {item["name"] for item in instances.dataset["categories"]} == set(BY_NAME)
    for identifier, entry in instances.imgs.items():
        with Image.open(corpus / manifest["images"] / entry["file_name"]) as opened:
            assert opened.size == (entry["width"], entry["height"]) == (112, 112)
        assert entry["file_name"] == f"{identifier:012d}.jpg"
    for annotation in instances.anns.values():
        mask = instances.annToMask(annotation)
        assert mask.shape == (112, 112) and mask.sum() == annotation["area"] > 0
        assert list(coco_mask.toBbox(annotation["segmentation"])) == annotation["bbox"]


def test_written_masks_and_captions_are_the_rendered_ones(corpus: Path) -> None:
    instances, captions = _coco(corpus, "instances", "robust"), _coco(corpus, "captions", "robust")
    for index in range(8):
        scene, identifier = render_picture(3, "robust", index), 4_000_001 + index
        assert tuple(item["caption"] for item in captions.imgToAnns[identifier]) == scene.captions
        for placed, annotation in zip(scene.objects, instances.imgToAnns[identifier], strict=True):
            assert annotation["category_id"] == BY_NAME[placed.category].id
            assert np.array_equal(instances.annToMask(annotation).astype(bool), placed.mask)
        with Image.open(corpus / "images" / "robust" / f"{identifier:012d}.jpg") as opened:
            error = np.abs(np.asarray(opened, dtype=int) - scene.image)
        # JPEG loses part of the noise; another picture would differ by tens.
        assert error.mean() < 5


def test_ids_are_unique_over_the_corpus(corpus: Path) -> None:
    for kind in ("instances", "captions"):
        loaded = [_coco(corpus, kind, split) for split in SPLITS]
        for table in ("imgs", "anns"):
            keys = [key for split in loaded for key in getattr(split, table)]
            assert len(set(keys)) == len(keys)


def test_manifest_says_what_the_corpus_is(corpus: Path) -> None:
    manifest = json.loads((corpus / "corpus.json").read_text())
    head = {key: manifest[key] for key in ("schema", "name", "seed", "size", "image_size", "p_bias")}
    assert head == {"schema": 1, "name": "scenes", "seed": 3, "size": 30, "image_size": 112, "p_bias": P_BIAS}
    assert tuple(manifest["splits"]) == SPLIT_NAMES == SPLITS
    assert ["car", "traffic light"] in manifest["pairs"] and len(manifest["pairs"]) == 6


class _InterruptingReporter:
    """Breaks off after a few pictures, as Ctrl-C would."""

    def note(self, text: str) -> None:
        raise AssertionError("nothing to note")

    def warn(self, text: str) -> None:
        raise AssertionError("nothing to warn of")

    @contextlib.contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            if done == 5:
                raise KeyboardInterrupt

        assert total == 10 + 4 * 8
        yield advance

    @contextlib.contextmanager
    def dashboard(self, title: str) -> Iterator[Show]:
        raise AssertionError("nothing is trained")


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "corpus", size=10, reporter=_InterruptingReporter())
    assert list(tmp_path.iterdir()) == []


def test_interrupted_replacement_keeps_the_old_corpus(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", size=8)
    before = _tree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "corpus", size=10, force=True, reporter=_InterruptingReporter())
    assert _tree(tmp_path) == before


def test_existing_folder_is_refused_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    write_corpus(out, size=8)
    before = _tree(out)
    with pytest.raises(CorpusError, match=r"exists already.*--force"):
        write_corpus(out, size=8, seed=1)
    assert _tree(out) == before
    assert write_corpus(out, size=8, seed=1, force=True)["seed"] == 1
    assert json.loads((out / "corpus.json").read_text())["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_force_does_not_delete_what_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CorpusError, match="not a corpus folder"):
        write_corpus(tmp_path, size=8, force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"7 training pictures.*--size"):
        write_corpus(tmp_path / "corpus", size=7)
    with pytest.raises(CorpusError, match=r"Seed -1.*--seed"):
        write_corpus(tmp_path / "corpus", size=8, seed=-1)
    with pytest.raises(CorpusError, match="Did you mean 'robust'"):
        render_picture(0, "robus", 0)
    with pytest.raises(CorpusError, match="8 pixels"):
        render_picture(0, "train", 0, image_size=8)
    assert list(tmp_path.iterdir()) == []
