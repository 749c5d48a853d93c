"""The scaffold: the document that the policy writes for itself, its checks, its prompt, and the library of old ones."""
