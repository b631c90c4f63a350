"""
The process in which a variant is measured. It reads orders from standard input, one JSON per line, and answers each with
the seconds that it took and with what it gave. It stays on its cores, and what an order needs is built outside of the time.
"""

import gc
import json
import os
import sys
import time
import warnings


def main() -> None:
    threads = int(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints goes to standard error
    warnings.simplefilter("ignore")

    import torch as th  # late: it counts the cores

    from benchmarks.environments import silence_age
    from benchmarks.speed.tasks import TASKS

    silence_age()
    th.set_num_threads(threads)
    built: dict[str, object] = {}
    for line in sys.stdin:
        task, arguments, n = json.loads(line)
        key = json.dumps([task, arguments])
        if key not in built:
            built[key] = TASKS[task](**arguments)
        gc.collect()
        start = time.perf_counter()
        value = built[key](n)
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, value]), file=answers, flush=True)


if __name__ == "__main__":
    main()
