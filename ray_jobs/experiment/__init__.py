"""Define an experiment: the schema of its YAML file, and how it is loaded."""
