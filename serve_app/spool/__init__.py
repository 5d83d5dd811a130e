"""Durable frames: kept on disk before their caller gets a ticket, answered after whatever happened since."""
