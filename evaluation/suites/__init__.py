"""What is measured: each file asks, counts and reports one thing."""
