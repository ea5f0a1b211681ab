"""What a reward model must beat on rankings: rules that read no meaning, fitted to the same training rankings.

chance; the longer answer is better; a logistic regression on the words of the two answers (scikit-learn, an extra).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chatwheel.data.records import Ranking
from chatwheel.data.splits import key_of

Array = NDArray[np.float64]

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Of the regression (1 / its penalty); the best one is found on training pairs, five-fold over prompts."""
FOLDS = 5
_TERM = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


def terms(text: str) -> list[str]:
    """Words in lower case, Chinese characters each by itself, and two of them in a row."""
    words = _TERM.findall(text.lower())
    return [*words, *(f"{a} {b}" for a, b in pairwise(words))]


def longer_is_right(rankings: Iterable[Ranking]) -> Array:
    """Of each pair, whether the better answer has more characters; equal ones are half right."""
    pairs = [(len(r.answers[i]), len(r.answers[j])) for r in rankings for i, j in r.pairs()]
    return np.array([0.5 if a == b else float(a > b) for a, b in pairs])


def words_are_right(train: Sequence[Ranking], rankings: Sequence[Ranking]) -> Array | str:
    """Of each pair, whether a logistic regression on the difference of the two answers' TF-IDF prefers the better one.
    A text says why it cannot be told: scikit-learn is not installed, or there is too little to learn from."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, GroupKFold
    except ImportError:
        return "not measured: `pip install 'chatwheel[baselines]'` for it"
    better, worse, prompts = _pairs(train)
    if len(set(prompts)) < FOLDS:
        return f"not measured: the rankings that the model learnt from are not here, or of fewer than {FOLDS} prompts"
    vectorizer = TfidfVectorizer(analyzer=terms, sublinear_tf=True, min_df=2)
    try:
        vectorizer.fit(dict.fromkeys([*better, *worse]))
    except ValueError:
        return "not measured: no word is in two answers"
    # Every second pair the other way round: two classes, and, without an intercept, nothing to learn from the order.
    sign = np.where(np.arange(len(better)) % 2 == 0, 1.0, -1.0)
    differences = (vectorizer.transform(better) - vectorizer.transform(worse)).multiply(sign[:, None]).tocsr()
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False, max_iter=1000), {"C": STRENGTHS}, cv=GroupKFold(FOLDS), refit=True
    )
    search.fit(differences, sign, groups=prompts)
    better, worse, _ = _pairs(rankings)
    lead = search.decision_function(vectorizer.transform(better) - vectorizer.transform(worse))
    return np.where(lead == 0, 0.5, (lead > 0).astype(float))


def _pairs(rankings: Iterable[Ranking]) -> tuple[list[str], list[str], list[str]]:
    """The better and the worse answer of each pair, and the prompt's first question."""
    found = [(r.answers[i], r.answers[j], key_of(r)) for r in rankings for i, j in r.pairs()]
    return [a for a, _, _ in found], [b for _, b, _ in found], [key for _, _, key in found]
