"""What ``repro report --all`` does: read all runs, write the page over them, say what is on it."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from score_core.repro.catalogue import catalogue, load_runs
from score_core.repro.schema import Row
from score_core.repro.site import write_site
from score_core.runs.provenance import utc_now


def report_all(workdirs: Sequence[Path], rows: Sequence[Row], output: Path) -> int:
    """Write the page into ``output``; returns the exit status.

    A folder that cannot be read is named on the page and on stderr, and does not keep the others from it.
    """
    runs, problems = load_runs(list(dict.fromkeys(workdirs)), rows)
    papers = catalogue(rows, runs)
    page = write_site(papers, output, utc=utc_now(), problems=problems)
    for problem in problems:
        print(f"warning: left out {problem}", file=sys.stderr)
    counts = Counter(line.status for paper in papers for line in paper.lines)
    told = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    print(f"{len(rows)} rows, {len(runs)} run{'s' * (len(runs) != 1)}: {told}")
    print(f"Report: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0
