"""Feature extraction: corpora of raw media, encoders, and what runs them."""
