from publishing import repository, signer

__all__ = ["repository", "signer"]
