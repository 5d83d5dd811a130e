"""The names under which the application and its deployments are deployed and found."""

APP_NAME = "framelane"
# Its deployment that callers talk to.
ROUTER_NAME = "router"
# Before a pool's name.
ENGINE_PREFIX = "engine-"
# The application of HTTP callers, which is a client of the first one; and its deployment.
HTTP_APP_NAME = "framelane-http"
HTTP_NAME = "http"
# What listens at the port of critical keys.
CRITICAL_DOOR_NAME = "http-critical"
