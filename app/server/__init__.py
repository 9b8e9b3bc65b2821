"""What page and API share: the assistant, its queue, security, uploads, metrics, replicas."""
