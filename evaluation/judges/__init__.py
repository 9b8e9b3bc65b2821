"""What decides whether an answer is right, fluent, or gives a fact away."""
