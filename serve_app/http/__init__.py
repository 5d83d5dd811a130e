"""HTTP in front of the service: a Serve application of its own, which is a client of the routers like any other."""
