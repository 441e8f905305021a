"""What page and sheet say about what is explained: words as they are, or one word rather than another."""

from __future__ import annotations

from capxai.explain.colors import percent, signed
from capxai.explain.explanation import Explanation


def question(explanation: Explanation) -> str:
    """Return the question that the page answers, its heading."""
    if explanation.contrast is not None:
        return f"Why did the model say “{explanation.tokens[0]}” rather than “{explanation.contrast.token}”?"
    if explanation.before or explanation.after:
        return f"Why did the model say “{' '.join(explanation.tokens)}”?"
    return "Why did the model say this? Hover or tab to a word."


def share_title(explanation: Explanation) -> str:
    """Return the heading of the shares."""
    if not explanation.conserved:
        return "Picture against words"
    return "Where the logit comes from" if explanation.contrast is None else "Where the difference of logits comes from"


def share_text(explanation: Explanation) -> str:
    """Say what the shares are of, and what the sides of the bar mean."""
    if not explanation.conserved:
        whole = "Shares of |picture| + |words|: this method leaves no part to biases or eps. "
    else:
        whole = f"Shares of the {'logit' if explanation.contrast is None else 'difference'}: they add up to 100 %. "
    other = "against the word" if explanation.contrast is None else sides(explanation)[1]
    return f"{whole}What lies left of the line speaks {other}."


def sides(explanation: Explanation) -> tuple[str, str]:
    """Return what red and blue speak for, as they follow "speaks for" and "speaks"."""
    if explanation.contrast is None:
        return "the word", "against it"
    return f"“{explanation.tokens[0]}”", f"for “{explanation.contrast.token}”"


def confidence(explanation: Explanation, word: int) -> str:
    """Return probability and logit of a word, of a contrast beside those of the other word."""
    probability, logit = (
        percent(float(explanation.probability[word]), sign=False),
        signed(float(explanation.logits[word])),
    )
    other = explanation.contrast
    if other is None:
        return f"probability {probability} · logit {logit}"
    return (
        f"probability {probability} against {percent(other.probability, sign=False)} · "
        f"logit {logit} against {signed(other.logit)}, difference {signed(explanation.explained(word))}"
    )


def contrast_line(explanation: Explanation) -> str:
    """Say what is explained, of a contrast; "" where words are explained as they are."""
    other = explanation.contrast
    if other is None:
        return ""
    probability, logit = float(explanation.probability[0]), float(explanation.logits[0])
    return (
        f"Why {explanation.title(0)}: logit {signed(logit)} against {signed(other.logit)}, difference "
        f"{signed(explanation.explained(0))}; probability {percent(probability, sign=False)} against "
        f"{percent(other.probability, sign=False)}"
    )


def legend(explanation: Explanation) -> tuple[str, str]:
    """Return what the bar of a word on the sheet stands for, in two lines."""
    other = explanation.contrast
    conserving = "shares of the logit" if other is None else "shares of the difference of logits"
    whole = conserving if explanation.conserved else "shares of |picture| + |words|"
    left = "against the word" if other is None else f"for {other.token}"
    return f"Bar: {whole};", f"what lies left of its line is {left}."


def short_title(explanation: Explanation, word: int) -> str:
    """Return what is explained as it fits above a tile: "knife", or of a contrast "knife, not fork"."""
    token, other = explanation.tokens[word], explanation.contrast
    return token if other is None else f"{token}, not {other.token}"
