"""The authors' word map, a JSON object ``{word: id}``, as a vocabulary."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from capxai.data.vocabulary import Vocabulary
from capxai.errors import VocabularyError

SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")


def read_wordmap(path: Path) -> Vocabulary:
    """Read a word map.

    Raises:
        VocabularyError: The file is missing or no JSON object, or its ids are not 0 to V - 1 with ``<pad>`` 0 and
            all four special words. All that is wrong is named at once.
    """
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except FileNotFoundError as error:
        raise VocabularyError(
            f"There is no file '{path}'. Expected the authors' word map. Check the path given to --wordmap."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(
            f"'{path}' cannot be read as JSON ({error}). Expected the authors' word map, an object {{word: id}}. "
            "Other formats, such as "
            "pickles, are not read; save the word map as JSON."
        ) from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs) or not pairs:
        raise VocabularyError(
            f"'{path}' holds no JSON object with words. Expected {{word: id}}, as the authors publish it. Check the "
            "file."
        )
    problems = _problems(pairs)
    if problems:
        raise VocabularyError(
            f"The word map '{path}' cannot be used: {'; '.join(problems)}. Expected every word once, with ids from 0 "
            "without a gap, "
            "<pad> 0, and the special words <start>, <end> and <unk>. Use the word map that belongs to the "
            "checkpoint, unchanged."
        )
    return Vocabulary([word for word, _ in sorted(pairs, key=lambda pair: pair[1])])


def _problems(pairs: list[tuple[str, object]]) -> list[str]:
    problems = []
    ids = dict(pairs)
    not_whole = [word for word, number in pairs if type(number) is not int]
    repeated_words = [word for word, count in Counter(word for word, _ in pairs).items() if count > 1]
    counts = Counter(number for _, number in pairs if isinstance(number, int))
    repeated_ids = [number for number, count in counts.items() if count > 1]
    absent = [number for number in range(len(pairs)) if number not in counts]
    missing = [word for word in SPECIALS if word not in ids]
    if not_whole:
        problems.append(f"the id of '{not_whole[0]}' is no whole number")
    if repeated_words:
        problems.append(f"'{repeated_words[0]}' is there more than once")
    if missing:
        problems.append(f"{', '.join(missing)} is missing")
    if ids.get("<pad>", 0) != 0:
        problems.append(f"<pad> has the id {ids['<pad>']}")
    if repeated_ids:
        problems.append(f"the id {repeated_ids[0]} is given to more than one word")
    elif absent and not not_whole:
        problems.append(f"there are {len(pairs)} words, but none has the id {absent[0]}")
    return problems
