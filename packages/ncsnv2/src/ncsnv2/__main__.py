"""``python -m ncsnv2``: says that this package holds its metadata only."""

import sys


def main() -> int:
    """Prints what is and what is not there; the exit code is 1, so that no script mistakes it for a run."""
    print(
        "ncsnv2: this package has no commands yet; only score_sde does (python -m score_sde --help).",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
