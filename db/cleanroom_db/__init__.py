"""What happened: the record in PostgreSQL, and the only way to it.

One module an entity; every function takes a `Database` first. Functions called inside `database.transaction()`
take part in that transaction. SQL stands in named blocks in `sql/`, invariants stand in the schema.
"""
