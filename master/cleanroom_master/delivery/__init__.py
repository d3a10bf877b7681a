"""Delivery: what is published, brought to a web server or an object store elsewhere, in an order that never breaks."""
