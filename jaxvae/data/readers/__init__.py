"""Readers of tag columns: files of several formats, and data sets of the Hugging Face Hub."""
