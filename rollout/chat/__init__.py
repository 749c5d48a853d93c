"""Messages to token ids, append-only, and what the policy wrote back to messages."""
