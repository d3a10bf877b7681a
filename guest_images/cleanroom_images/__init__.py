"""Images: the described, checksummed root file systems from which guests start.

`description` reads what an image should be, `build` and `importing` make one, `store` seals it and puts it in
place, `catalogue` finds it again.
"""
