"""The bare model: onnxruntime in a loop on one core. Arguments: MODEL, ROWS, SECONDS."""

from __future__ import annotations

import sys
from itertools import cycle, islice
from time import perf_counter, process_time

import onnxruntime

from .work import questions


def main() -> None:
    """Print calls per second, and the CPU time of one call in seconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options)
    made = questions(int(sys.argv[2]))
    feeds = cycle([{"input": question.values} for question in made])
    for feed in islice(feeds, 200):
        session.run(None, feed)
    calls, began, used = 0, perf_counter(), process_time()
    until = began + float(sys.argv[3])
    while perf_counter() < until:
        for feed in islice(feeds, 100):
            session.run(None, feed)
        calls += 100
    print(calls / (perf_counter() - began), (process_time() - used) / calls)


if __name__ == "__main__":
    main()
