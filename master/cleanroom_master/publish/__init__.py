"""What leaves: packages become signed, immutable generations of a repository for apt and for dnf.

The package works on a directory and on plain values; it knows no database. The process that takes passed
releases from a table and calls this package stands elsewhere.
"""
