//! End-to-end tests of the binary `verbatim`: nothing to use here, everything is in `it/`.
