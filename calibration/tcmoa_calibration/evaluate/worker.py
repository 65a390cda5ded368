"""`python -m tcmoa_calibration.evaluate.worker`: a process that measures pairs, one JSON line in, one out.

The first line is the plan, each further one a task; an answer is `{"measured": [...], "notes": [...]}` or, where a
contestant cannot be loaded, `{"stop": {"kind": ..., "message": ...}}`. Notes are the texts of warnings. It ends when
its input does, also when the other end has died.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from tcmoa_calibration.evaluate.measure import Measurer, Plan, Task
from tcmoa_runtime.errors import TcmoaError


def answer(measurer: Measurer, line: str) -> dict[str, Any]:
    """What is told about one task."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            measured = measurer.measure(Task.from_json(json.loads(line)))
        except TcmoaError as error:
            return {"stop": {"kind": type(error).__name__, "message": str(error)}}
    notes = list(dict.fromkeys(str(warning.message) for warning in noted))
    return {"measured": [asdict(entry) for entry in measured], "notes": notes}


def serve(tasks: IO[str], answers: IO[str]) -> None:
    """Until `tasks` ends."""
    first = tasks.readline()
    if not first:
        return
    measurer = Measurer(Plan.from_json(json.loads(first)))
    for line in tasks:
        answers.write(json.dumps(answer(measurer, line), allow_nan=False) + "\n")
        answers.flush()


def main() -> None:
    """Serve on stdin and stdout; what libraries print goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
