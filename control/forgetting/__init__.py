"""Facts forgotten on request: suppressed in passages, prompts and every generated token."""
