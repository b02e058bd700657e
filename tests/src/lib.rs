//! End-to-end tests of the binary `verbatim`; everything is in `it/`.
