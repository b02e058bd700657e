//! The tamper-evident, append-only record of one gateway node: append, group commit, hash tree, checkpoints, recovery, verify
