"""Data sets of the Hugging Face Hub: reached, streamed or read from the cache."""
