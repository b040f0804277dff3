"""The table of a job's transitions, rendered from jobs/states.py: docs/architecture.md has to hold it.

`python -m tests.docs.support.states_table` prints it.
"""

from __future__ import annotations

from jobs.states import TRANSITIONS


def states_table() -> str:
    """A Markdown table: a row for each transition."""
    rows = ["| transition | from | to | when |", "|---|---|---|---|"]
    for name, one in TRANSITIONS.items():
        after = ", ".join(f"`{state}`" for state in one.after)
        rows.append(f"| {name} | `{one.before}` | {after} | {one.when} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(states_table())
