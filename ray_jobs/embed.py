"""embed: write the embeddings of audio, or of texts, by the retrievers of an exported ensemble.

Example: enclap embed runs/demo/bundle field_recordings/ --output embeddings.parquet
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("embed")
