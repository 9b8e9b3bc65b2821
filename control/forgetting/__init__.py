"""Facts that are forgotten on request: kept from passages, prompts and every generated token."""
