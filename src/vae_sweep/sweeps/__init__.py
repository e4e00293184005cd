"""One run, many runs, and the processes that train them."""
