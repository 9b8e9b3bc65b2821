"""What a person opens: the command line, and what turns settings into objects."""
