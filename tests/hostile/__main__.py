"""Write all hostile bundles to a folder."""

import sys
from pathlib import Path

from hostile.cases import CASES
from hostile.write_bundle import write_bundle

folder = Path(sys.argv[1])
write_bundle(folder / "valid")
for case in CASES:
    case.make(folder / case.name.replace(" ", "-"))
    print(f"{case.name.replace(' ', '-')}: {case.refusal}")
