//! What `fuzz/` feeds with any bytes: the parts of this crate that a peer reaches, without sockets. Nothing else uses it;
//! it is here because those parts are nobody else's to call.

use std::sync::Arc;

use verbatim_wire::fuzzing::{Counts, pieces};

use crate::frame::{Limits, Next, Requests};
use crate::operation::{Allowed, Frontend, Role, Turn, read_login};
use crate::results::walk::{Event, Walk};
use crate::results::{Entry, Open, Part, Results};

/// What a command may measure here: small, so that inputs reach the limit.
const MESSAGE_MAX: u64 = 4096;

/// Bytes as requests before and after the login, and as replies.
pub fn frames(bytes: &[u8]) {
    for limits in [Limits::session(MESSAGE_MAX), Limits::login(512)] {
        let mut requests = Requests::new(limits);
        let mut at = 0;
        while let Ok(next) = requests.next(bytes) {
            let arguments = requests.arguments(bytes);
            let _ = read_login(&arguments);
            match next {
                Next::Incomplete => break,
                Next::Nothing | Next::Command => {
                    assert!(at < requests.end() && requests.end() <= bytes.len(), "a request of no bytes");
                    at = requests.end();
                }
                Next::Large(_) => {
                    let from = requests.end();
                    let rest = bytes.get(from..).unwrap_or_default();
                    if let Ok((used, _)) = requests.rest().walk(rest) {
                        assert!(used <= rest.len(), "more than there is");
                    }
                    break;
                }
            }
        }
    }
    let mut walk = Walk::default();
    let mut at = 0;
    while let Ok((used, event)) = walk.advance(bytes.get(at..).unwrap_or_default()) {
        at += used;
        assert!(at <= bytes.len(), "more than there is");
        match event {
            Event::More => break,
            Event::End => walk = Walk::default(),
            Event::Head(..) | Event::First => {}
        }
    }
}

/// A session in its ready phase, by a script: each piece is a byte of flags (1: the target sends it; 2: commands in it are
/// refused), a byte of length, and that many bytes, which both sides' machines take as the relay would.
///
/// What must hold for any script: every operation that was recorded gets one end, and what is passed on of the target's
/// bytes is a part of them, in order.
pub fn session(script: &[u8]) {
    let mut session = Session::new();
    for piece in pieces(script) {
        session.refusing = piece.refused;
        let goes_on = match piece.from_target {
            false => session.from_client(piece.bytes),
            true => session.from_target(piece.bytes),
        };
        if !goes_on {
            break;
        }
    }
    session.results.end();
    drop(session.results);
    session.counts.assert_ended();
}

struct Session {
    frontend: Frontend,
    results: Results,
    counts: Arc<Counts>,
    refusing: bool,
}

impl Session {
    fn new() -> Self {
        Self {
            frontend: Frontend::new(MESSAGE_MAX, Allowed::default(), None),
            results: Results::new(true),
            counts: Arc::default(),
            refusing: false,
        }
    }

    /// Whether the session goes on.
    fn from_client(&mut self, piece: &[u8]) -> bool {
        self.frontend.input.extend_from_slice(piece);
        loop {
            let view = self.results.view();
            if view.room == 0 {
                return true;
            }
            match self.frontend.turn(view) {
                Turn::Read | Turn::Stall => return true,
                Turn::Batch(batch) => {
                    let mut before = 0;
                    for item in batch.items {
                        assert!(before <= item.from && item.from < item.to, "a command out of order");
                        assert!(item.to <= batch.bytes.len(), "a command out of nowhere");
                        before = item.to;
                        let refused =
                            self.refusing || item.draft.is_some_and(|draft| draft.refused.is_some());
                        let entry = self.entry(item.role, refused);
                        self.results.expect(entry);
                        if item.role == Role::Quit {
                            return false;
                        }
                    }
                }
                Turn::Renew(_) => {
                    self.frontend.authenticated();
                    self.results.expect(Entry::Words("+OK\r\n".into()));
                }
                Turn::Large(_) | Turn::Broken(_) => return false,
            }
        }
    }

    fn entry(&self, role: Role, refused: bool) -> Entry {
        match role {
            Role::Exec if refused => Entry::Own(Role::Discard, Some("-no\r\n".into())),
            _ if refused => Entry::Words("-no\r\n".into()),
            role => Entry::Sent(Open::new(self.counts.recorded(), role, None)),
        }
    }

    fn from_target(&mut self, piece: &[u8]) -> bool {
        let (passed, received) = self.results.receive(piece);
        let mut before = 0;
        for part in &passed.parts {
            if let Part::Bytes(from, to) = part {
                assert!(before <= *from && from < to && *to <= piece.len(), "bytes out of order");
                before = *to;
            }
        }
        self.results.due();
        received.is_ok() && !passed.last
    }
}
