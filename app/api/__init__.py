"""The HTTP API: the routes of OpenAI's, and documents, forgetting and metrics."""
