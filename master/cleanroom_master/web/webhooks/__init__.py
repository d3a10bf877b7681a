"""Webhooks from forges: one that is signed, new and about a watched repository has the ref watch look at it.

Nothing that stands in one is believed: not which tag, not which commit. `forges` knows how each forge signs and names
things, `receiving` is the router.
"""
