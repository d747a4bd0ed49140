"""aac-metrics, which is first imported by whichever thread needs it first."""

from __future__ import annotations

import subprocess
import sys

AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from models.metrics.captions import best_preprocessing, candidate_values

begin, words = Barrier(2), [["a dog barks"], ["it rains"]]

def first():
    begin.wait()
    best_preprocessing()

def second():
    begin.wait()
    candidate_values(words, words)

with ThreadPoolExecutor(2) as pool:
    for done in [pool.submit(first), pool.submit(second)]:
        done.result()
"""


def test_two_threads_may_need_it_first() -> None:
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
