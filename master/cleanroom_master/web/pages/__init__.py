"""The pages: a module a question, each with a `router`."""
