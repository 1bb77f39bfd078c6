"""Metrics of answers: ROUGE-L by the package rouge-score, and exact match."""

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer


def rouge_l(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the mean F-measure of the longest common subsequence of words, in percent.

    Words are stemmed, as is usual; of several references the best match counts.
    """
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = [
        max(scorer.score(reference, answer)["rougeL"].fmeasure for reference in accepted)
        for answer, accepted in zip(answers, references, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


def exact_match(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the share of answers that equal a reference except for outer blanks, in percent."""
    hits = [
        answer.strip() in [reference.strip() for reference in accepted]
        for answer, accepted in zip(answers, references, strict=True)
    ]
    return 100 * sum(hits) / len(hits)
