"""The report of a run: one HTML file that needs nothing else, also of a run that still goes on or was killed.

gather   the run directory -> Run (what could not be read is named, never fatal)
html     markup that cannot be injected into: every string that is not markup is text
svg      charts        page   the whole file, its style and its script
one file for each section: head, learning, drift, scaffolds, filtering, policy, seconds, happened, review
reviews  what people decided        live   the same page, served and refreshed
"""
