"""What quantising costs the picture: a changed graph's frames beside the bundle's own, on pairs held out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tcmoa_calibration import metrics
from tcmoa_calibration.quantize.sessions import new_session
from tcmoa_calibration.samples import Sample, graph_inputs, rgb_of
from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import FUSED
from tcmoa_runtime.images import Frame, write_bytes


@dataclass(frozen=True)
class Damage:
    """A changed graph against float32. Shares are of all values of all frames."""

    mean_square: float
    """Of the difference in grey levels."""
    worst_mean_square: float
    """Of the frame that suffered most."""
    qabf_drop: float
    """Mean of Qabf in float32 less Qabf now; negative where it rose."""
    max_difference: int
    differing: float
    beyond_one: float

    @property
    def psnr_db(self) -> float:
        """Over all frames; infinite where nothing changed."""
        return _psnr(self.mean_square)

    @property
    def worst_psnr_db(self) -> float:
        """Of the frame that suffered most."""
        return _psnr(self.worst_mean_square)

    def line(self) -> str:
        """The figures for a person."""
        return f"{self.psnr_db:.2f} dB (worst pair {self.worst_psnr_db:.2f}), Qabf {-self.qabf_drop:+.4f}"


@dataclass(frozen=True)
class Budget:
    """What may be lost: at least `min_psnr` dB over all frames, at most `max_qabf_drop`; None is no bound."""

    min_psnr: float | None = None
    max_qabf_drop: float | None = None

    def holds(self, damage: Damage) -> bool:
        """Whether `damage` is within it."""
        return (self.min_psnr is None or damage.psnr_db >= self.min_psnr) and (
            self.max_qabf_drop is None or damage.qabf_drop <= self.max_qabf_drop
        )

    def line(self) -> str:
        """The bounds for a person."""
        parts = [] if self.min_psnr is None else [f"at least {self.min_psnr:g} dB"]
        parts += [] if self.max_qabf_drop is None else [f"Qabf at most {self.max_qabf_drop:g} lower"]
        return " and ".join(parts) or "no bound"


class Memo:
    """Measurements that outlive an interruption, in a file beside the bundle to be made; `key` says of what."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._measured: dict[str, dict[str, Any]] = {}
        try:
            stored = json.loads(path.read_bytes())
            if stored["key"] == key:
                self._measured = dict(stored["measured"])
        except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is of something else
            pass

    def get(self, name: str) -> Damage | None:
        """What was measured under that name."""
        try:
            return Damage(**self._measured[name])
        except (KeyError, TypeError):
            return None

    def put(self, name: str, damage: Damage) -> None:
        """Keep it, on disk, too."""
        self._measured[name] = asdict(damage)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"key": self._key, "measured": self._measured})
        write_bytes(self._path, text.encode())

    def forget(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def samples_key(samples: Sequence[Sample]) -> str:
    """SHA-256 of all pixels."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.name} {sample.x.shape}".encode() + sample.x.tobytes() + sample.y.tobytes())
    return digest.hexdigest()


class Judge:
    """Measures graphs on `samples` against the float32 bundle; what `memo` knows is not measured again."""

    def __init__(self, bundle: Bundle, samples: Sequence[Sample], memo: Memo) -> None:
        self._bundle, self._samples, self._memo = bundle, samples, memo
        self._expected: list[Frame] = []
        self._qabf: list[float] = []

    def damage(self, name: str, make: Callable[[], onnx.ModelProto]) -> Damage:
        """Of the graph that `make` gives, known as `name`."""
        known = self._memo.get(name)
        if known is None:
            known = self._measure(make())
            self._memo.put(name, known)
        return known

    def _measure(self, model: onnx.ModelProto) -> Damage:
        self._reference()
        session = new_session(model)
        squares, drops, differences = [], [], []
        for sample, expected, qabf in zip(self._samples, self._expected, self._qabf, strict=True):
            fused = rgb_of(
                self._bundle, np.asarray(session.run([FUSED], graph_inputs(self._bundle, sample))[0])
            )
            difference = np.abs(fused.astype(np.int16) - expected)
            squares.append(float(np.mean(difference.astype(np.float64) ** 2)))
            drops.append(qabf - _qabf(sample, fused))
            differences.append(difference)
        every: NDArray[np.int16] = np.stack(differences)
        return Damage(
            mean_square=float(np.mean(squares)),
            worst_mean_square=max(squares),
            qabf_drop=float(np.mean(drops)),
            max_difference=int(every.max()),
            differing=float(np.mean(every > 0)),
            beyond_one=float(np.mean(every > 1)),
        )

    def _reference(self) -> None:
        if self._expected:
            return
        backend = load_backend(self._bundle, "onnxruntime")
        for sample in self._samples:
            fused = rgb_of(self._bundle, backend.infer(graph_inputs(self._bundle, sample))[FUSED])
            self._expected.append(fused)
            self._qabf.append(_qabf(sample, fused))
        backend.close()


def _qabf(sample: Sample, fused: Frame) -> float:
    return float(metrics.qabf(sample.x, sample.y, fused))


def _psnr(mean_square: float) -> float:
    return 10 * math.log10(255**2 / mean_square) if mean_square > 0 else math.inf
