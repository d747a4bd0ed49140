"""Where audio and captions come from: one adapter a corpus onto one table. Never imports ray or models."""
