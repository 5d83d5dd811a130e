"""From traffic to plans: which canvases, engines, batches and replicas serve it with the least device time."""
