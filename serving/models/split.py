"""Which users a canary answers: a hash, so that every process and machine says the same and nothing is stored."""

import hashlib


def in_canary(user_key: str, salt: str, share: float) -> bool:
    """Whether a user belongs to the first `share` of the users, in the order that `salt` gives them.

    The first 53 bits of BLAKE2b(user, keyed by the salt) as a number in [0, 1): uniform, and independent from one salt to
    another. A larger share keeps the users of a smaller one. A microsecond.
    """
    digest = hashlib.blake2b(user_key.encode(errors="surrogatepass"), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53 < share
