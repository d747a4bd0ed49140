"""verify: check that a bundle is whole and as it was exported.

Example: enclap verify runs/demo/bundle
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("verify")
