"""Models to engines, and running them: graphs, geometry, boxes and one runner per runtime. No Ray in here."""
