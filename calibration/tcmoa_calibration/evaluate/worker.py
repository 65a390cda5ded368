"""`python -m tcmoa_calibration.evaluate.worker`: a process that measures pairs.

stdin is a sequence of pickles: the MeasureSettings, then a PairJob each time. stdout has the reply to each job, a
JobResult, or a TcmoaError if a method cannot be loaded. The process ends when its stdin ends, also if the parent was
killed.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from contextlib import suppress
from typing import IO

from tcmoa_calibration.evaluate.measure import JobResult, MeasureSettings, PairEvaluator, PairJob
from tcmoa_runtime.errors import TcmoaError


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Measure pairs until `requests` ends."""
    settings: MeasureSettings = pickle.load(requests)
    evaluator = PairEvaluator(settings)
    while True:
        job: PairJob = pickle.load(requests)
        pickle.dump(_reply(evaluator, job), replies)
        replies.flush()


def _reply(evaluator: PairEvaluator, job: PairJob) -> JobResult | TcmoaError:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            outcomes = evaluator.measure(job)
        except TcmoaError as error:
            return error
    return JobResult(outcomes, tuple(dict.fromkeys(str(warning.message) for warning in caught)))


def main() -> None:
    """Serve on stdin and stdout; what libraries print to stdout goes to stderr instead."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(EOFError, pickle.UnpicklingError, BrokenPipeError, KeyboardInterrupt):
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
