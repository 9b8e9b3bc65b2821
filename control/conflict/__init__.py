"""What memory and passages claim, and who is followed."""
