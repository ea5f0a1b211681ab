"""Forecasts for twice the data: on curves that are known, and on learners whose errors are measured."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

from chatwheel.errors import InputError
from chatwheel.evaluation.forecast import SHARES, Forecast, Measured, percent, subset_sizes
from chatwheel.evaluation.forecast_chart import draw_forecast, picture


def _exact(examples: int, curve: Callable[[float], float], standard_error: float = 1e-3) -> list[Measured]:
    return [Measured(n, curve(n), standard_error) for n in subset_sizes(examples)]


def test_a_curve_without_noise_is_found() -> None:
    forecast = Forecast.fit(_exact(800, lambda n: 0.02 + 2.0 * n**-0.6, 1e-4), target=0.95)
    assert forecast.error == pytest.approx(0.02 + 2.0 * 800**-0.6, rel=0.03)
    assert forecast.forecast == pytest.approx(0.02 + 2.0 * 1600**-0.6, rel=0.08)
    low, high = forecast.forecast_interval
    assert low < 0.02 + 2.0 * 1600**-0.6 < high
    least, most = forecast.needed_interval
    assert least is not None
    assert least < (2.0 / 0.03) ** (1 / 0.6) < (most or math.inf)


def test_a_target_below_the_floor_is_not_reachable_and_one_above_is_reached() -> None:
    flat = _exact(1600, lambda n: 0.2 + 30.0 * n**-1.0, 5e-4)
    assert Forecast.fit(flat, target=0.99).sentence.endswith("99 % is not reachable by more of the same data")
    assert Forecast.fit(flat, target=0.7).sentence.endswith("70 % is reached already")


def test_more_questions_make_a_narrower_interval() -> None:
    def width(tested: int) -> float:
        points = [Measured.binomial(n, round(tested * n**-0.4), tested) for n in (100, 200, 400, 800)]
        low, high = Forecast.fit(points).forecast_interval
        return high - low

    assert width(10_000) < 0.6 * width(200)


def test_the_same_measurements_give_the_same_forecast_in_any_order() -> None:
    points = [Measured.binomial(n, wrong, 300) for n, wrong in ((40, 90), (80, 66), (160, 51), (320, 38))]
    assert Forecast.fit(points) == Forecast.fit(points[::-1])


def test_no_error_at_all_is_no_certainty() -> None:
    forecast = Forecast.fit([Measured.binomial(n, 0, 50) for n in (10, 20, 40, 80)])
    assert 0 < forecast.forecast < 0.06
    assert forecast.forecast_interval[1] > 0.01


def test_seeds_share_their_questions() -> None:
    one = Measured.of_seeds(100, [0.2], 400)
    three = Measured.of_seeds(100, [0.2, 0.2, 0.2], 400)
    apart = Measured.of_seeds(100, [0.1, 0.2, 0.3], 400)
    assert one.standard_error == three.standard_error == pytest.approx(math.sqrt(0.2 * 0.8 / 400), rel=0.02)
    assert apart.standard_error == pytest.approx(math.sqrt(three.standard_error**2 + 0.01 / 3))


@pytest.mark.parametrize(
    "points",
    [
        [Measured(10, 0.5, 0.1), Measured(20, 0.4, 0.1)],
        [Measured(10, 0.5, 0.1), Measured(20, 0.4, 0.1), Measured(40, 1.2, 0.1)],
        [Measured(10, 0.5, 0.1), Measured(20, float("nan"), 0.1), Measured(40, 0.2, 0.1)],
        [Measured(10, 0.5, 0.1), Measured(20, 0.4, 0.0), Measured(40, 0.2, 0.1)],
    ],
)
def test_what_is_no_measurement_is_refused(points: list[Measured]) -> None:
    with pytest.raises(InputError, match="a forecast needs errors"):
        Forecast.fit(points)


def test_shares_are_written_with_the_digits_that_matter() -> None:
    assert [percent(share) for share in (0.384, 0.0996, 0.08, 0.0624, 0.0084, 0.0)] == [
        "38 %",
        "10 %",
        "8 %",
        "6.2 %",
        "0.84 %",
        "0 %",
    ]


def test_the_picture_is_xml_that_says_the_sentence() -> None:
    points = [Measured.binomial(n, wrong, 400) for n, wrong in ((50, 92), (100, 70), (200, 46), (400, 32))]
    forecast = Forecast.fit(points)
    chart = ET.fromstring(draw_forecast(forecast))
    assert chart.find("desc").text == forecast.sentence  # type: ignore[union-attr]
    assert len(chart.findall("circle")) == 4
    file = ET.fromstring(picture(forecast))
    said = " ".join(text for part in file.iter() if part.tag.endswith("text") and (text := part.text))
    assert forecast.sentence in said
    assert json.loads(json.dumps(forecast.to_json()))["sentence"] == forecast.sentence


def test_intervals_hold_what_they_promise() -> None:
    """Two hundred curves with floors and without, from 400 questions each time: about 95 % of the intervals hold the
    truth, and they are no wider than what was measured makes them."""
    generator = np.random.default_rng(7)
    held, widths, closer = 0, [], 0
    for _ in range(200):
        c, floor = generator.uniform(0.1, 1.0), generator.choice([0.0, generator.uniform(0, 0.8)])
        scale = generator.uniform(0.1, 0.6) / (floor + (1 - floor) * 8**c)

        def error(times: float, c: float = c, floor: float = floor, scale: float = scale) -> float:
            return scale * (floor + (1 - floor) * times**-c)

        points = [
            Measured.binomial(round(800 * share), int(generator.binomial(400, error(share))), 400) for share in SHARES
        ]
        forecast, truth = Forecast.fit(points), error(2.0)
        low, high = forecast.forecast_interval
        held += low <= truth <= high
        widths.append((high - low) / truth)
        closer += abs(forecast.forecast - truth) < abs(points[-1].error - truth)
    assert 0.91 <= held / 200 <= 0.99
    assert np.mean(widths) < 1.0  # to half the truth on each side
    assert closer / 200 > 0.7


# Ten tasks that are learnt in an instant, so that their curves can be measured: examples and their classes.

Task = tuple[Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]], str]


def _gaussians(distance: float, dimensions: int) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    def draw(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        y = generator.integers(0, 2, count)
        x = generator.standard_normal((count, dimensions))
        x[:, 0] += distance * (2 * y - 1)
        return x, y

    return draw


def _stripes(bands: int) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    def draw(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.uniform(0, 1, (count, 2))
        return x, (x[:, 0] * bands).astype(int) % 2

    return draw


def _words(vocabulary: int) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]:
    """Facts that are learnt one by one and asked for as often as Zipf has it."""
    often = 1 / np.arange(1, vocabulary + 1)
    classes = np.random.default_rng(5).integers(0, 2, vocabulary)

    def draw(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.choice(vocabulary, size=count, p=often / often.sum())
        return x[:, None].astype(float), classes[x]

    return draw


def _predict(learner: str, x: np.ndarray, y: np.ndarray, questions: np.ndarray) -> np.ndarray:
    if learner == "nearest":
        distances = (questions**2).sum(1)[:, None] + (x**2).sum(1) - 2 * questions @ x.T
        return y[distances.argmin(1)]
    if learner == "memory":
        known = dict(zip(x[:, 0], y, strict=True))
        return np.array([known.get(q, 0) for q in questions[:, 0]])
    # Least squares, with a ridge that lets it begin with fewer examples than dimensions.
    wide, asked = np.c_[x, np.ones(len(x))], np.c_[questions, np.ones(len(questions))]
    weights = np.linalg.solve(wide.T @ wide + np.eye(wide.shape[1]), wide.T @ (2 * y - 1))
    return (asked @ weights > 0).astype(int)


TASKS: list[Task] = [
    (_gaussians(1.2, 30), "linear"),
    (_gaussians(1.0, 60), "linear"),
    (_gaussians(2.0, 100), "linear"),
    (_gaussians(1.5, 20), "nearest"),
    (_gaussians(1.2, 5), "nearest"),
    (_stripes(4), "nearest"),
    (_stripes(8), "nearest"),
    (_words(2000), "memory"),
    (_words(10_000), "memory"),
    (_words(500), "memory"),
]


def _error(
    task: Task, generator: np.random.Generator, examples: int, questions: tuple[np.ndarray, np.ndarray]
) -> float:
    """Of the task's learner after so many new examples."""
    draw, learner = task
    asked, right = questions
    return float((_predict(learner, *draw(generator, examples), asked) != right).mean())


def test_the_forecast_from_half_of_the_data_holds_what_all_of_it_gives_in_eight_of_ten_tasks() -> None:
    held, widths = 0, []
    for number, task in enumerate(TASKS):
        generator = np.random.default_rng(number)
        few, many = task[0](generator, 500), task[0](generator, 4000)
        points = [
            Measured.of_seeds(n, [_error(task, generator, n, few) for _ in range(2)], 500) for n in subset_sizes(800)
        ]
        low, high = Forecast.fit(points).forecast_interval
        truth = float(np.mean([_error(task, generator, 1600, many) for _ in range(8)]))
        held += low <= truth <= high
        widths.append((high - low) / truth)
    assert held >= 8
    assert np.median(widths) < 0.7  # an interval that says nothing would hold everything
