"""What an experiment is: the schema of its YAML file, and loading it."""
