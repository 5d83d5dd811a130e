"""The name under which the application is deployed and found."""

APP_NAME = "framelane"
# Its deployment that callers talk to.
ROUTER_NAME = "router"
