"""The JSON files in which jobs hand their results on, one pydantic model each."""
