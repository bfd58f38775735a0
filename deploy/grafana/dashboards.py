"""The dashboards: what an operator sees. `make dashboards` writes dashboards/*.json from this file.

Two of them. *now* fits on a screen and answers "is it well?"; *detail* has a row for each part and answers "which part
is it?". tests/integration/test_monitoring.py puts every query to a real Prometheus while the service runs into faults.

    python -m deploy.grafana.dashboards"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from deploy.grafana import detail, now
from deploy.grafana.classic import Annotation, dashboard

FOLDER = Path(__file__).parent / "dashboards"
NOW, DETAIL = ("downtick: now", "downtick-now"), ("downtick: detail", "downtick-detail")
ANNOTATIONS = (
    Annotation(
        "Model change",
        "sum by (version) (downtick_model_info) unless sum by (version) (downtick_model_info offset 1m)",
        "{{version}} predicts",
        "blue",
    ),
    Annotation(
        "Rebalance",
        # A worker's first scrape may have its assignment counted already: then its age tells. Not a change of its start
        # time, which a new instance has none of, nor has one that was away for longer than the range.
        "sum by (instance) (increase(downtick_rebalances_total[1m])) > 0"
        " or sum by (instance) (time() - process_start_time_seconds < 60 and on (job, instance) downtick_ready)",
        "{{instance}}: partitions moved",
        "orange",
    ),
)


def all_of_them() -> dict[str, dict[str, Any]]:
    """By file name."""
    return {
        "now.json": dashboard(
            NOW[1],
            NOW[0],
            "Is downtick well? Throughput, lag, latency, falling stocks, refusals and forecast quality on one screen.",
            now.ROWS,
            annotations=ANNOTATIONS,
            links=(DETAIL,),
            span="15m",
            refresh="5s",
        ),
        "detail.json": dashboard(
            DETAIL[1],
            DETAIL[0],
            "Which part of downtick is it? A row for each.",
            detail.ROWS,
            annotations=ANNOTATIONS,
            links=(NOW,),
            span="1h",
            refresh="10s",
        ),
    }


def texts() -> dict[str, str]:
    """By file name, as they are committed."""
    return {name: json.dumps(document, indent=1, ensure_ascii=False) + "\n" for name, document in all_of_them().items()}


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{FOLDER.name}/{name}\n")


if __name__ == "__main__":
    main()
