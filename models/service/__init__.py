"""A bundle as a service: the FastAPI app with its limits and its page, and what answers behind it. No Ray."""
