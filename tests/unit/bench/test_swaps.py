"""How the measurement of model swaps is judged."""

from __future__ import annotations

from bench.swaps.__main__ import markdown, summary


def swap(**others: float) -> dict[str, float]:
    return {"took": 3, "p99_before": 10, "p99_close": 11, "p99_whole": 12, "longest": 50, "resident": 1e9} | others


def test_what_loading_costs_before_the_takeover_is_judged_too() -> None:
    found = {"grown": 0, "grown_by_other_shapes": 0, "settling": 0, "other_shapes": [swap(p99_whole=30)]}
    kept = summary({**found, "swaps": [swap()] * 8 + [swap(p99_whole=21)] * 2})
    assert (kept["ratio_is_kept"], kept["above_twice"], kept["above_twice_share"]) == (True, 2, 0.2)
    assert (kept["ratio_whole"], kept["ratio_whole_largest"], kept["ratio_whole_other_shapes"]) == (1.2, 2.1, 3.0)
    slow = summary({**found, "swaps": [swap(p99_whole=25)] * 10})  # as quick as ever around the takeover
    assert (slow["ratio_is_kept"], slow["above_twice_share"], slow["ratio_close"]) == (False, 1.0, 1.1)


def test_the_page_tells_how_the_time_before_a_swap_changed_in_the_run() -> None:
    swaps = [swap(p99_before=10 * number) for number in range(1, 31)]
    found = {"grown": 0, "grown_by_other_shapes": 0, "settling": 0, "swaps": swaps, "other_shapes": [swap()]}
    host = {"cpu": "c", "cores": 2, "memory_gb": 8, "load_before": 0.1, "commit": "0" * 40, "changed_files": 0}
    load = {"broker": "in-memory", "rate": 1000, "stocks": 10, "every": 12.0, "settle": 120.0, "shadow": False}
    page = markdown(
        {**found, "summary": summary(found), "machine": host, "load": load, "date": "today", "command": "swaps"}
    )
    assert "55.0 ms in the first 10 swaps and 255.0 ms in the last 10." in page
