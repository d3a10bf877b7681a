from publishing import home_of_two_keys, open_two_keys, repository, runtime, signer, two_keys

__all__ = ["home_of_two_keys", "open_two_keys", "repository", "runtime", "signer", "two_keys"]
