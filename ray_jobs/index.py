"""index: add audio files to the index that an exported ensemble keeps, for `enclap retrieve` to search.

Example: enclap index runs/demo/bundle field_recordings/
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("index")
