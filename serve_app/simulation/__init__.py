"""The production scheduler on a virtual clock: traces in, figures out."""
