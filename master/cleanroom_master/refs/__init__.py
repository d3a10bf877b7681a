"""The ref watch: sees tags and commits of watched repositories and records them.

It is a process of its own, because it talks to the outside and because GitPython is not made for long-lived
ones. Everything it learns goes into the record; nobody asks it anything.
"""
