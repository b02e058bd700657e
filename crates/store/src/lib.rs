//! The session index and full-text search, derived from the ledger
