"""An inspection line: seeded scenes with exact boxes, and the small models trained on them."""
