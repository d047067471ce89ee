"""``python -m ncsnv2.fid_score A B``: FID between folders of images, archives of samples or statistics files.

It is ``score-stats fid`` with the extractor of NCSNv2 (pytorch-fid's network and scaling).
"""

import sys
from collections.abc import Sequence

__all__ = ["main"]

_USAGE = """\
usage: python -m ncsnv2.fid_score SAMPLES REFERENCE [options]

FID between two sets. A set is a folder of images, a dataset (digits, cifar10, ...), .npz archives of uint8 images, or a
statistics file with mu and sigma. The extractor is inception_ncsnv2 unless --extractor names another (digits needs no
weights). All options of `score-stats fid`: --extractor, --weights, --json, --image-size, --split, ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("-h", "--help") for argument in arguments):
        print(_USAGE, end="")
        return 0
    from score_core.metrics.__main__ import main as score_stats

    if not any(argument.partition("=")[0] == "--extractor" for argument in arguments):
        arguments += ["--extractor", "inception_ncsnv2"]
    return score_stats(["fid", *arguments])


if __name__ == "__main__":
    sys.exit(main())
