"""What Python people already know, over ``clone``: thin, shaped like the stdlib. One file each."""
