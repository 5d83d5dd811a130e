"""`python -m serve_app.cli` is `framelane`."""

from serve_app.cli import main

main()
