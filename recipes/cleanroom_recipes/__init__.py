"""What to build: the pure vocabulary of products, recipes and phases, and the messages about them.

Nothing here touches a guest, a database or the network; everything here can be tested in microseconds.
"""
