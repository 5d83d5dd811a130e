"""`python -m serve_app.cli` is `framelane`."""

from serve_app.cli import main

if __name__ == "__main__":  # a spawned child imports this file under another name
    main()
