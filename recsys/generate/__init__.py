"""Items as short sequences of codes: semantic ids, the trie of those that exist, and the decoder that writes them."""
