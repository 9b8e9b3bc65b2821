"""Where passages and their vectors are kept."""
