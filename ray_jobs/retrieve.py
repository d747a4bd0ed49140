"""retrieve: find the audio files that fit a text best, with an exported ensemble.

Example: enclap retrieve runs/demo/bundle "a dog barks" field_recordings/
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("retrieve")
