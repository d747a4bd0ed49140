"""Sources of audio and captions: an adapter for each corpus, which reads it into one table. Never imports ray."""
