"""The quickstart's judge, as far as it needs no jax: a labelled set of episodes, its reading, and its report card."""
