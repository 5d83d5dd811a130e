"""The names under which the application and its deployments are deployed and found."""

APP_NAME = "framelane"
# Its deployment that callers talk to.
ROUTER_NAME = "router"
# Before a pool's name.
ENGINE_PREFIX = "engine-"
