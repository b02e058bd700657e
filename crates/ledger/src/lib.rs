//! The tamper-evident, append-only record of one gateway node: append, group commit, hash tree, checkpoints, recovery,
//! verify.
//!
//! ```text
//!  session's own thread                committer                              files
//!  ────────────────────                ─────────                              ─────
//!  event → fields, payload frames,
//!          hashes (no shared lock)
//!        → index, time, leaf  ───────▸ oldest batch → tree → signed note ───▸ one write, one sync
//!          (shared lock, about 1 µs)                                            ledger/seg/00000042.vbl
//!        ◂─ durable(index) ─────────── wakes those who wait, each once        │
//!                                                                             ▾
//!  Reader: entries and checkpoints, behind a live ledger        verify, prove: from the files and a public key alone
//! ```
//!
//! [`Ledger`] is the one writer; [`SessionLog`] is a session's share of it, and refuses what would make no sense in the
//! record. [`Reader`] follows it, [`verify`] judges it, [`prove`] cuts out what one can take away. The stored formats are
//! laid out in `docs/formats.md`.
//!
//! What it does not do: it knows no protocol, no policy and no sink; it does not encrypt payload yet (each part says by
//! `alg` how it is stored), has one key for a log's life, and no witnesses but those that are given to `verify`.
//!
//! # Promises
//! - An entry is acknowledged once it is synced and under a signed checkpoint ([`SyncMode::Always`]), or written
//!   ([`SyncMode::Within`]). What was acknowledged is there after a crash.
//! - No checkpoint is shown to anybody before its sync returned. A sync that failed is never tried again: the log is dead,
//!   and says so to everyone who waits.
//! - What was committed is never repaired or rewritten; a ledger that is not as it was committed is not opened.
//! - What a crash leaves is put on record: discarded bytes, aborted operations, closed sessions.
//!
//! # Limits
//! An envelope has 60,000 bytes at most, a payload frame 1 MiB, an entry 128 of them; longer payload goes on in `chunk`
//! entries in the same commit. A batch has 1,024 entries or 1 MiB, or is one larger entry, which gets a segment as long as
//! it needs. 256 MiB may wait for being written; who appends more waits.
//!
//! Opening reads the whole ledger once, and has to: one that is damaged anywhere is not gone on with. `verify` reads it
//! once too, with a thread a core, and holds some 40 MiB of it, and what is known of each open session;
//! `examples/speed.rs` measures both.
//!
//! # Specifications
//! RFC 6962 section 2.1 (tree), RFC 9162 sections 2.1.3 and 2.1.4 (proofs), C2SP signed-note, tlog-checkpoint and
//! tlog-proof, RFC 8032 (Ed25519), RFC 3720 appendix B.4 (CRC-32C).
//!
//! # Example
//! ```
//! use verbatim_core::event::kind;
//! use verbatim_core::{AuditEvent, Value, Visitor};
//! use verbatim_ledger::{Ledger, Settings, SyncMode, verify};
//!
//! struct Config;
//! impl AuditEvent for Config {
//!     fn kind(&self) -> &str {
//!         kind::CONFIG
//!     }
//!     fn visit(&self, visitor: &mut dyn Visitor) {
//!         visitor.field("binary", Value::Text("0.1.0"));
//!     }
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! let settings = Settings {
//!     data_dir: folder.path().to_owned(),
//!     organisation: "example.com".to_owned(),
//!     node: "gw-1".to_owned(),
//!     sync: SyncMode::Always,
//!     segment_bytes: 1 << 20,
//!     reserve_bytes: 1 << 20,
//!     heartbeat: std::time::Duration::from_secs(10),
//!     last_checkpoint: None,
//! };
//! let (ledger, _) = Ledger::open(settings)?;
//! ledger.append(&Config)?;
//! ledger.close();
//!
//! let inputs = verify::Inputs { ledgers: vec![ledger.dir().to_owned()], ..Default::default() };
//! assert_eq!(verify::verify(&inputs).result, verify::Outcome::Intact);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
