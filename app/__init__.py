"""The command line, the server and the page, and the factory that builds objects from settings."""
