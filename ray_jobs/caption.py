"""caption: caption audio files with an exported ensemble.

Example: enclap caption runs/demo/bundle recording.wav
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("caption")
