//! The tamper-evident, append-only record of one gateway node: append, group commit, hash tree, checkpoints, recovery,
//! verify.

mod chain;
mod commit;
mod create;
pub mod disk;
mod entry;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod hash;
pub mod heartbeat;
pub mod log;
pub mod note;
pub mod payload;
mod prepare;
pub mod profile;
pub mod prove;
pub mod reader;
mod recover;
mod scan;
pub mod segment;
mod sequencer;
pub mod settings;
mod spare;
mod torn;
pub mod tree;
pub mod verify;
mod writer;

pub use disk::Disk;
pub use error::{LedgerError, OpenError, ReadError};
pub use log::{Ledger, SessionLog};
pub use note::Checkpoint;
pub use reader::{Entry, Item, Location, Part, Reader};
pub use settings::{Admission, HeartbeatFacts, Recovery, Settings, Stats, SyncMode};
