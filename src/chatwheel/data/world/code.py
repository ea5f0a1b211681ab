"""Tiny Python functions, for a base model that has seen code."""

from __future__ import annotations

from random import Random

_PLAIN: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (("add", "plus"), "a, b", "Return the sum of a and b.", "return a + b"),
    (("subtract", "minus"), "a, b", "Return a minus b.", "return a - b"),
    (("multiply", "times"), "a, b", "Return a times b.", "return a * b"),
    (("double",), "n", "Return two times n.", "return 2 * n"),
    (("square",), "n", "Return n times n.", "return n * n"),
    (("is_even",), "n", "Return True if n is even.", "return n % 2 == 0"),
    (("is_empty",), "words", "Return True if there are no words.", "return len(words) == 0"),
    (("largest",), "numbers", "Return the largest number.", "return max(numbers)"),
    (("smallest",), "numbers", "Return the smallest number.", "return min(numbers)"),
    (("total",), "numbers", "Return the sum of the numbers.", "return sum(numbers)"),
    (("first",), "words", "Return the first word.", "return words[0]"),
    (("last",), "words", "Return the last word.", "return words[-1]"),
    (("count",), "words", "Return how many words there are.", "return len(words)"),
    (("reverse",), "words", "Return the words in reverse order.", "return words[::-1]"),
    (("sort",), "words", "Return the words in alphabetical order.", "return sorted(words)"),
    (("join",), "words", "Return the words, separated by commas.", 'return ", ".join(words)'),
    (("greet",), "name", "Say hello to someone.", 'return "Hello, " + name + "!"'),
    (("larger",), "a, b", "Return the larger one of a and b.", "if a > b:\n        return a\n    return b"),
    (
        ("count_word",),
        "word, words",
        "Return how often the word is in the list.",
        "n = 0\n    for w in words:\n        if w == word:\n            n = n + 1\n    return n",
    ),
    (
        ("add_all",),
        "numbers",
        "Add all numbers.",
        "result = 0\n    for n in numbers:\n        result = result + n\n    return result",
    ),
)
_CALLS = {
    "add": "+",
    "plus": "+",
    "subtract": "-",
    "minus": "-",
    "multiply": "*",
    "times": "*",
}


def _written(rng: Random) -> str:
    names, arguments, docstring, body = rng.choice(_PLAIN)
    name = rng.choice(names)
    text = f'def {name}({arguments}):\n    """{docstring}"""\n    {body}\n'
    if name in _CALLS:
        a, b = rng.randint(5, 15), rng.randint(1, 5)
        result = {"+": a + b, "-": a - b, "*": a * b}[_CALLS[name]]
        text += f"\nprint({name}({a}, {b}))  # {result}\n"
    return text


def function(rng: Random) -> str:
    """One or two functions with docstrings, perhaps with a call and what it prints."""
    texts = [_written(rng)]
    if rng.random() < 0.6:
        texts.append(_written(rng))
    return "\n\n".join(dict.fromkeys(texts))
