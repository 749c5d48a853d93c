"""The quickstart's judge: a small model, how it is trained and measured, and the server that answers with it."""
