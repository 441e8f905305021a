"""The tokenizer of the COCO metrics itself: Stanford CoreNLP 3.4.1, as pycocoevalcap runs it, but through pipes.

pycocoevalcap writes a file into its own package folder, and takes what Java prints without looking whether it is as many lines.
"""

from __future__ import annotations

from collections.abc import Sequence

from capxai.evaluate.java_process import JavaLimits, java, pycocoevalcap_file
from capxai.evaluate.tokenizer import PUNCTUATION

_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
_CLASS = "edu.stanford.nlp.process.PTBTokenizer"


def tokenize_all_with_java(captions: Sequence[str], limits: JavaLimits) -> list[str]:
    """Tokenize captions; the tokens of each are joined by single spaces and have no punctuation.

    Raises:
        DependencyError: Java is missing or fails, or returned another number of lines than it was given.
    """
    if not captions:
        return []
    # The tokenizer ends lines at more characters than the newline (carriage return, U+2028): one caption, one line.
    lines = [" ".join(caption.split()) for caption in captions]
    arguments = ["-cp", str(pycocoevalcap_file(_JAR)), _CLASS, "-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    with java(arguments, "tokenizing captions", limits) as process:
        found = process.ask_all(lines)
        if len(found) != len(lines):
            raise process.failure(f"it returned {len(found)} lines for {len(lines)} captions")
    return [_without_punctuation(line) for line in found]


def _without_punctuation(line: str) -> str:
    # Split at the space alone: a token may hold a no-break space ("2 1/2").
    return " ".join(token for token in line.rstrip().split(" ") if token not in PUNCTUATION)
