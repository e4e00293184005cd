"""Everything that draws or formats a sweep."""
