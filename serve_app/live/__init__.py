"""The live page: what routers tell of their last frames, and the page that shows it to people."""
