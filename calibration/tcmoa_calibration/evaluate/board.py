"""A board: pairs with the metric values of published methods, among which other methods are ranked.

A folder with `pairs/NAME_x.EXT`, `pairs/NAME_y.EXT` and `peers.json`:

    {"profile": "correct", "metrics": {"Qabf": "Qabf", ...}, "lower_is_better": ["Qcv"],
     "methods": {"IFCNN": {"NAME": {"Qabf": 0.51, ...}, ...}, ...}}

`metrics` gives each metric of the board the name that `tcmoa evaluate` has for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tcmoa_calibration.metrics import Profile
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.evaluate import METRIC_NAMES, PROFILES, MetricName
from tcmoa_runtime.pairs import PairPaths, find_pairs
from tcmoa_runtime.regular_file import read_regular_file

FILE_NAME: Final = "peers.json"
PAIRS: Final = "pairs"
"""Folder of the pairs in that of a board."""

MAX_BYTES: Final = 64 << 20
"""Size of the file that is read at most."""

_MAX_SHOWN: Final = 3

NameT = TypeVar("NameT", bound=str)


@dataclass(frozen=True)
class Board:
    """Published methods by their metrics.

    Attributes:
        path: The folder.
        profile: How the metrics are computed.
        metrics: The metrics.
        lower_is_better: Those of which a lower value is better.
        methods: Value by method, pair and metric.
    """

    path: Path
    profile: Profile
    metrics: tuple[MetricName, ...]
    lower_is_better: frozenset[str]
    methods: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def pair_names(self) -> frozenset[str]:
        """Names of the pairs that every method has."""
        return frozenset(next(iter(self.methods.values())))

    def check_pairs(self, names: set[str]) -> None:
        """Raise InputError unless every pair of the board is among `names`."""
        missing = sorted(self.pair_names - names)
        if missing:
            rest = f" and {len(missing) - _MAX_SHOWN} more" if len(missing) > _MAX_SHOWN else ""
            raise InputError(
                f"its pairs {', '.join(missing[:_MAX_SHOWN])}{rest} are not among the pairs to evaluate; expected "
                f"all {len(self.pair_names)}",
                subject=self.path,
                remedy=f"Leave the pairs out to take those of {self.path / PAIRS}",
            )


def board_pairs(path: Path) -> list[PairPaths]:
    """Return the pairs of a board; raises InputError if there are none."""
    return find_pairs(path / PAIRS)


def read_board(path: Path) -> Board:
    """Read the board in a folder.

    Raises:
        InputError: The folder holds no board, or the file is malformed.
    """
    file = path / FILE_NAME
    if not file.is_file():
        raise InputError(f"no {FILE_NAME}; expected the folder of a board", subject=path)
    try:
        content = json.loads(read_regular_file(file, max_bytes=MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not readable ({error}); expected a JSON object", subject=file) from error
    try:
        return _parse(path, content)
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"not a board ({type(error).__name__}: {error}); expected profile, metrics, lower_is_better and methods "
            f"with a number for each pair and metric",
            subject=file,
        ) from error


def _parse(path: Path, content: dict[str, dict[str, dict[str, dict[str, float]]]]) -> Board:
    names: Mapping[str, object] = content["metrics"]
    renamed = {shown: _find(str(name), METRIC_NAMES, "metric") for shown, name in names.items()}
    methods: dict[str, dict[str, dict[str, float]]] = {
        method: {
            pair: {renamed[shown]: _number(values[shown]) for shown in renamed}
            for pair, values in of_method.items()
        }
        for method, of_method in content["methods"].items()
    }
    if not renamed or not methods or not next(iter(methods.values())):
        raise ValueError("no metrics, methods or pairs")
    if len({frozenset(of_method) for of_method in methods.values()}) > 1:
        raise ValueError("the methods have different pairs")
    return Board(
        path=path,
        profile=_find(str(content["profile"]), PROFILES, "profile"),
        metrics=tuple(renamed.values()),
        lower_is_better=frozenset(renamed[shown] for shown in content["lower_is_better"]),
        methods=methods,
    )


def _find(name: str, known: tuple[NameT, ...], kind: str) -> NameT:
    found = next((item for item in known if item == name), None)
    if found is None:
        raise ValueError(f"unknown {kind} {name!r}")
    return found


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
