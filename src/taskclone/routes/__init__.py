"""The ways to carry a start out, one file each, all of the same shape.

``NAME``; ``check(plan)``, which refuses what the route does not carry before anything is started; and
``start(plan, ...) -> Task``.
"""
