"""Train members with Ray Train."""
