"""Run the command line as ``python -m featurecache``."""

from featurecache.cli import main

if __name__ == "__main__":
    main()
