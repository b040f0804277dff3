"""Two checkouts compared by what their benchmarks print."""

from __future__ import annotations

from bench.support.comparison import _middle, _ratio, read_tables

PRINTED = """The machine.

### From a request, 40 times

|  | p50 | p95 |
|---|---|---|
| to the first event | 6.6 ms | 12.4 ms |
| to the first event | 9.5 ms | 12.4 ms |

### In one process

| threads | a drawing | engine | queue |
|---|---|---|---|
| 1 | wall time, median | 2.768 s | 2.942 s |
| 2 | wall time, median | 2.889 s | 2.908 s |
"""


def test_the_cells_of_all_tables_are_known_by_title_row_and_column():
    assert read_tables(PRINTED) == {
        ("From a request, … times", "to the first event", "p50"): "6.6 ms",
        ("From a request, … times", "to the first event", "p95"): "12.4 ms",
        ("From a request, … times", "to the first event (2)", "p50"): "9.5 ms",
        ("From a request, … times", "to the first event (2)", "p95"): "12.4 ms",
        ("In one process", "1, wall time, median", "engine"): "2.768 s",
        ("In one process", "1, wall time, median", "queue"): "2.942 s",
        ("In one process", "2, wall time, median", "engine"): "2.889 s",
        ("In one process", "2, wall time, median", "queue"): "2.908 s",
    }


def test_runs_that_differ_in_numbers_only_are_told_as_medians():
    assert _middle(["median 5.3 s, at most 1,006.6 s", "median 6.3 s, at most 7.6 s"]) == (
        "median 5.8 s, at most 507.1 s"
    )
    assert _middle(["+1.2 %", "-0.4 %", "+2.0 %"]) == "+1.2 %"
    assert _middle(["finished", "refused: full", "finished"]) == "finished; refused: full"


def test_a_ratio_is_told_of_like_cells():
    assert _ratio("4.0 ms", "6.0 ms") == "1.50×"
    assert _ratio("finished", "finished") == "" and _ratio("0.0 %", "1.0 %") == ""
    assert _ratio("+0.2 ms", "-3.2 ms") == "", "a difference already"
