"""Everything with weights or a formula, in plain torch and numpy. Never imports ray or ray_jobs."""
