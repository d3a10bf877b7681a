"""A host and its guests: everything that happens where products are built and tested.

`host.Host` is the way in; `guest.Guest` is what it hands out. Nothing here knows a database or a signing key.
"""
