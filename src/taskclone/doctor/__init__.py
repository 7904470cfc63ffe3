"""What this system lets taskclone do: each file asks about one topic, ``examine`` asks them all.

Nothing is changed and nothing is left: what is asked of the kernel are calls that fail or do nothing, and children that
end at once (csrc/core/probe.c). "Needed" is what no route can do without: see ``Finding.needed``.
"""
