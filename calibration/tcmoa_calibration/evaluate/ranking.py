"""Ranking methods by the mean of their ranks over metrics.

Each metric ranks all methods by their mean over the pairs. The score is the mean of a method's ranks, 1 is best. Ranks,
because the scales of metrics differ; many metrics, because each alone can be misled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tcmoa_calibration.evaluate.board import Board
from tcmoa_calibration.metrics import METRICS
from tcmoa_runtime.options.evaluate import MetricName
from tcmoa_runtime.typing import JsonObject

Values: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Value of a method by pair and metric."""


@dataclass(frozen=True)
class Rank:
    """A method among the others.

    Attributes:
        label: Name of the method.
        is_published: Whether its values are those of a board, not measured here.
        place: 1 plus the number of methods with a better score.
        score: Mean of the ranks, 1 is best.
        ranks: Rank by metric, 1 plus the number of methods with a better mean.
    """

    label: str
    is_published: bool
    place: int
    score: float
    ranks: Mapping[str, int]


@dataclass(frozen=True)
class Ranking:
    """Methods from the best to the worst.

    Attributes:
        ranks: The methods, the best first.
        metrics: Metrics that rank them: those of which every method has a value on some pair.
        num_pairs: Number of pairs over which the means are taken.
        unranked: Labels of methods without any value.
    """

    ranks: tuple[Rank, ...]
    metrics: tuple[MetricName, ...]
    num_pairs: int
    unranked: tuple[str, ...] = ()

    def of(self, label: str) -> Rank | None:
        """Return the rank of a method that was measured; None if it is unranked."""
        return next((rank for rank in self.ranks if rank.label == label and not rank.is_published), None)

    def to_json(self) -> JsonObject:
        """Return plain values: `methods` and `published` by label, see `Evaluation`."""

        def listed(is_published: bool) -> JsonObject:
            return {
                rank.label: {"place": rank.place, "score": round(rank.score, 4), "ranks": dict(rank.ranks)}
                for rank in self.ranks
                if rank.is_published == is_published
            }

        return {
            "metrics": list(self.metrics),
            "pairs": self.num_pairs,
            "of": len(self.ranks),
            "methods": listed(False),
            "published": listed(True),
            "unranked": list(self.unranked),
        }


def rank_methods(
    methods: Mapping[str, Values], metrics: Sequence[MetricName], board: Board | None = None
) -> Ranking:
    """Rank methods among each other, and among the published ones of a board.

    The mean of a metric is taken over the pairs on which every method has a value, so that all means are of the same
    pairs.

    Args:
        methods: Values of the measured methods by label.
        metrics: Metrics that were measured; those of the board are taken if there is one.
        board: The board; its pairs are taken then.
    """
    ranked = {label: values for label, values in methods.items() if values}
    tables: dict[tuple[str, bool], Values] = {(label, False): values for label, values in ranked.items()}
    if board is not None:
        tables |= {(label, True): values for label, values in board.methods.items()}
        metrics = board.metrics
    ranks: dict[MetricName, dict[tuple[str, bool], int]] = {}
    pairs: set[str] = set()
    for metric in metrics:
        common = [
            pair
            for pair in next(iter(tables.values()), {})
            if all(values.get(pair, {}).get(metric) is not None for values in tables.values())
        ]
        if common:
            pairs.update(common)
            ranks[metric] = _rank(tables, metric, sorted(common), _is_higher_better(metric, board))
    scores = {
        key: sum(of_metric[key] for of_metric in ranks.values()) / len(ranks) for key in tables if ranks
    }
    return Ranking(
        ranks=tuple(
            Rank(
                label=key[0],
                is_published=key[1],
                place=1 + sum(other < score for other in scores.values()),
                score=score,
                ranks={metric: of_metric[key] for metric, of_metric in ranks.items()},
            )
            for key, score in sorted(scores.items(), key=lambda item: item[1])
        ),
        metrics=tuple(ranks),
        num_pairs=len(pairs),
        unranked=tuple(label for label in methods if (label, False) not in scores),
    )


def _is_higher_better(metric: MetricName, board: Board | None) -> bool:
    return METRICS[metric].higher_is_better if board is None else metric not in board.lower_is_better


def _rank(
    tables: Mapping[tuple[str, bool], Values], metric: str, pairs: Sequence[str], higher_is_better: bool
) -> dict[tuple[str, bool], int]:
    """Return 1 plus the number of methods with a better mean, by method."""
    sign = 1 if higher_is_better else -1
    means = {
        key: sign * sum(values[pair][metric] or 0.0 for pair in pairs) / len(pairs)
        for key, values in tables.items()
    }
    return {key: 1 + sum(other > mean for other in means.values()) for key, mean in means.items()}
