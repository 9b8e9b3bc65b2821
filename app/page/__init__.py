"""The Gradio page: one file for each tab."""
