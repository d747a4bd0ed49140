"""The verbs: one module a job, each runnable by itself and with `ray job submit`."""
