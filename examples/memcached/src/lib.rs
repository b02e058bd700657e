//! An example of a protocol of one's own: memcached's text protocol.
//!
//! `docs/adding-a-protocol.md` leads along this crate, file by file. Like every interceptor it holds no policy, opens no files and
//! writes no events: it reads a client's bytes, asks the [`Gate`](verbatim_core::Gate) for a session and the session's
//! [`Operations`](verbatim_core::Operations) for a permit for each command, and forwards nothing but what is
//! [`Recorded`](verbatim_core::Recorded).
//!
//! ```text
//!  client                                    gateway                                       target
//!    │ set auth 0 0 N / connection token       startup    who, and for which connection
//!    │                                         Gate       identity, access, session opened
//!    │                                         target     the gateway's own login            │
//!    │ ◂─ STORED
//!    │ get a / set b 0 0 5 / hello …           frame      lines and data blocks
//!    │                                         operation  what is asked; permits, durable
//!    │                                         relay      the original bytes              ─▸ │
//!    │ ◂─ VALUE a …, END, STORED               results    matched to what was asked: outcomes
//! ```
//!
//! The protocol has no login of its own. The gateway takes the token as memcached takes a password where it is started with
//! `-Y`: as the value of the stream's first `set`, under any key, behind the connection's name. Everything before that is
//! answered with `CLIENT_ERROR unauthenticated`.
//!
//! A command is an operation of kind `command`: its line is the text, its data block the one parameter; a block over 64 KiB
//! is recorded piece by piece instead, each before it is forwarded (of a refused one, its line alone). `rows` counts what came or was changed. Where a command
//! may have no answer (`noreply`, a meta command's `q`) the gateway sends `mn` behind it, keeps the `MN` that comes back,
//! and so knows that the target has run it.
//!
//! Limits: a line 2048 bytes (`get` and `gets` 256 KiB), a key 250, a value and a token as
//! [`Limits`](verbatim_wire::Limits) says; 16 lines before the token; 4096 commands without an answer.
//!
//! Refused, and the session goes on: what is the operator's (`shutdown`, `cache_memlimit`, `slabs`, `lru`, `lru_crawler`, `extstore`,
//! `refresh_certs`) and `watch`, whose answer has no end. `flush_all` passes, like every command on data. Refused, and the
//! session ends: lines that nobody can read for sure, unknown commands among them, since a data block may follow or not.
//!
//! Specification: `doc/protocol.txt` of memcached 1.6; where that is silent, `proto_text.c` of 1.6.18. The target has to be a
//! 1.6 or later, for `mn`.

mod frame;
mod operation;
mod refusal;
mod relay;
mod results;
mod startup;
pub mod target;

use std::sync::Arc;

use verbatim_wire::{Interceptor, InvalidTarget, Listener, Serve, TargetSettings};

/// The protocol's name, and the type of its connections.
const NAME: &str = "memcached";

/// The protocol, for the gateway's list.
pub fn interceptor() -> Arc<dyn Interceptor> {
    Arc::new(Memcached)
}

/// There is nothing that the listeners of a gateway would have to share.
struct Memcached;

impl Interceptor for Memcached {
    fn name(&self) -> &'static str {
        NAME
    }

    fn types(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn example(&self) -> &'static str {
        "memcached://cache.internal:11211"
    }

    fn statement(&self, text: &str) -> Option<String> {
        text.split_ascii_whitespace().next().map(str::to_ascii_lowercase)
    }

    fn target(&self, settings: TargetSettings<'_>) -> Result<Arc<dyn verbatim_wire::Target>, InvalidTarget> {
        Ok(Arc::new(target::Target::parse(settings)?))
    }

    fn listen(self: Arc<Self>, listener: Listener) -> Serve {
        let listener = Arc::new(listener);
        Arc::new(move |socket, peer| Box::pin(startup::serve(socket, peer, Arc::clone(&listener))))
    }
}
