"""The name under which the application is deployed and found."""

APP_NAME = "framelane"
