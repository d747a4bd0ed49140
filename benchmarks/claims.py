"""What every benchmark ends with: a table for people, and one line of JSON."""

from __future__ import annotations

import json

Claims = dict[str, dict[str, float | str]]


def claim(ours: float, baseline: float, target: float, unit: str, less: bool = False) -> dict[str, float | str]:
    """A row of the result; the ratio is the better the higher, whether `less` of the unit is better or more."""
    ratio = baseline / ours if less else ours / baseline
    return {"ours": ours, "baseline": baseline, "ratio": ratio, "target": target, "unit": unit}


def show(claims: Claims) -> None:
    """Print the table, then the JSON."""
    widest = max(len(name) for name in claims)
    for name, row in claims.items():
        print(f"{name:>{widest}}: ours {row['ours']:.4g}  baseline {row['baseline']:.4g} {row['unit']}  "
              f"ratio {row['ratio']:.2f}, target {row['target']:.3g}")  # fmt: skip
    print(json.dumps(claims))
