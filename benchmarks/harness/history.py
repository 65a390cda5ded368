"""Earlier runs: one JSON file each, named by time and processor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.machine import slug

FORMAT: Final = 1


def file_name(run: Mapping[str, Any]) -> str:
    """Return `<UTC time>-<cpu>.json`."""
    time = str(run["utc"]).replace("-", "").replace(":", "")
    return f"{time}-{slug(run['machine']['cpu'])}.json"


def latest(folder: Path, run: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name and content of the latest earlier run with the same processor, threads and plan.

    Files that are unreadable or have another format are skipped.
    """
    own = file_name(run)
    cpu = slug(run["machine"]["cpu"])
    for path in sorted(folder.glob(f"*-{cpu}.json"), key=lambda p: p.name, reverse=True):
        if path.name >= own:
            continue
        try:
            found = json.loads(path.read_bytes())
            same = all(found[key] == run[key] for key in ("threads", "quick", "format"))
            if same and found["machine"]["cpu"] == run["machine"]["cpu"] and isinstance(found["cases"], dict):
                return path.name, found
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return None


def changes(run: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the relative change of p50 against an earlier run, by case and contender."""
    found: dict[str, dict[str, float]] = {}
    for name, case in run["cases"].items():
        old = before["cases"].get(name, {}).get("contenders", {})
        for contender, entry in case["contenders"].items():
            earlier = old.get(contender, {}).get("p50_ms")
            if entry.get("p50_ms") and earlier:
                found.setdefault(name, {})[contender] = entry["p50_ms"] / earlier - 1
    return found
