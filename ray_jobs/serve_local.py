"""serve-local: serve a bundle over HTTP from this process, without Ray; the same app as `enclap serve`.

Example: enclap serve-local runs/demo/bundle --share-audio
"""

from __future__ import annotations

from ray_jobs.run.entry import run_command

if __name__ == "__main__":
    run_command("serve-local")
