"""Where recordings come from: URLs, folders and our own storage, each checked where it is read."""
