"""The Ray Serve application: frames, lanes, the scheduler, the router, the engine replicas and the client."""
