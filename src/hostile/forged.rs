//! By the holder of an append-only secret.
