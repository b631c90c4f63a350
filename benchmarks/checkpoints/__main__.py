"""
Measures what checkpoints of a million transitions cost: ``python -m benchmarks.checkpoints run``, ``report``.

``run`` trains on Hopper-v5 by ``rlx2 train`` with a replay buffer that is full from the beginning, and goes on by
``--resume``; ``report`` writes the table in docs/resume.md.
"""

import argparse

from benchmarks.checkpoints import costs, report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("command", choices=["run", "report"])
    if parser.parse_args().command == "run":
        costs.run()
    else:
        report.write()


if __name__ == "__main__":
    main()
