"""What commands leave on disk: the shapes of files, and how they are read."""
