"""Types of arguments, shared flags, and what the training commands share."""
