"""similar: find the audio files that sound most like a recording, with an exported ensemble.

Example: enclap similar runs/demo/bundle door.wav field_recordings/
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("similar")
