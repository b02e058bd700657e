//! What `fuzz/` feeds with any bytes: the parts of this crate that a peer reaches, without sockets. Nothing else uses it;
//! it is here because those parts are nobody else's to call.

use std::sync::Arc;

use bytes::Bytes;
use verbatim_core::Refusal;
use verbatim_wire::fuzzing::{Counts, pieces};

use crate::capability::{BULK, COMMON, DEPRECATE_EOF, PROGRESS, QUERY_ATTRIBUTES, SESSION_TRACK};
use crate::greeting::Greeting;
use crate::operation::{Batch, Data, Frontend, Memory, Step, Turn, View};
use crate::results::{Entry, Results};
use crate::startup::packet::{Login, Response};
use crate::startup::token::Form;
use crate::{frame, relay};

/// What a command may measure here: small, so that inputs reach the limit.
const MESSAGE_MAX: u64 = 4096;
/// What a stream may settle here.
const CAPABILITIES: u64 = COMMON | DEPRECATE_EOF | SESSION_TRACK | QUERY_ATTRIBUTES | PROGRESS | BULK;

/// Bytes as everything that is read before a session: greeting, response, COM_CHANGE_USER, tokens.
pub fn startup(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = Greeting::read(bytes.clone());
    if let Ok(response) = Response::read(bytes.clone()) {
        assert!(response.login.user.len() <= bytes.len(), "a name out of nowhere");
    }
    let _ = Login::change_user(bytes.clone(), CAPABILITIES);
    for form in [Form::Clear, Form::OpenIdConnect] {
        if let Ok(token) = form.token(bytes.clone(), 64) {
            assert!(token.len() <= 64, "a token over the limit");
        }
    }
}

/// A session in its ready phase, by a script: each piece is a byte of flags (1: the target sends it; 2: operations in it
/// are refused; 4, in the first: without what is deprecated), a byte of length, and that many bytes.
///
/// What must hold for any script: what is forwarded is a part of what came, every operation that was recorded gets one
/// end, and what is put between the target's bytes is put inside of them.
pub fn session(script: &[u8]) {
    let plain = script.first().is_some_and(|flags| flags & 4 != 0);
    let mut session = Session::new(if plain { COMMON } else { CAPABILITIES });
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
    session.end();
}

struct Session {
    frontend: Frontend,
    memory: Memory,
    results: Results,
    counts: Arc<Counts>,
    /// What the client sent.
    sent: u64,
    /// What of it went to the target.
    forwarded: u64,
    refusing: bool,
}

impl Session {
    fn new(capabilities: u64) -> Self {
        Self {
            frontend: Frontend::new(MESSAGE_MAX, capabilities),
            memory: Memory::default(),
            results: Results::new(capabilities, 2, true),
            counts: Arc::default(),
            sent: 0,
            forwarded: 0,
            refusing: false,
        }
    }

    /// Whether the session goes on.
    fn from_client(&mut self, piece: &[u8]) -> bool {
        self.sent += piece.len() as u64;
        self.frontend.input.extend_from_slice(piece);
        self.turns()
    }

    fn from_target(&mut self, piece: &[u8]) -> bool {
        let piece = Bytes::copy_from_slice(piece);
        let Ok(inserts) = self.results.receive(&piece, &mut self.memory) else { return false };
        let mut before = 0;
        for (at, _) in &inserts.at {
            assert!(before <= *at && *at <= piece.len(), "an insert outside of what came");
            before = *at;
        }
        let _ = self.results.can_say_why();
        !inserts.last && self.turns()
    }

    fn turns(&mut self) -> bool {
        while self.results.has_room() {
            let view = View {
                takes_data: self.results.takes_data(),
                pending: !self.results.is_idle(),
                preparing: self.results.is_preparing(),
                may_load: self.results.may_load(),
            };
            match self.frontend.turn(&self.memory, view) {
                Turn::Read | Turn::Stall => break,
                Turn::Broken(..) | Turn::Quit => return false,
                Turn::Batch(batch) => self.batch(batch),
                Turn::Data(data) => self.data(&data),
                Turn::Kill { bytes, .. } => self.forwarded += bytes.len() as u64,
                Turn::ChangeUser { .. } => assert!(self.results.is_idle(), "a login while something runs"),
            }
            let _ = self.results.due();
        }
        true
    }

    /// As the relay admits a batch.
    fn batch(&mut self, batch: Batch) {
        let mut from = 0;
        assert!(!batch.items.is_empty(), "a batch of nothing");
        for item in batch.items {
            assert!(from < item.end && item.end <= batch.bytes.len(), "a command outside of its batch");
            let length = (item.end - from) as u64;
            from = item.end;
            if item.draft.refused.is_some() || self.refusing {
                if let Step::LongData { statement, .. } = &item.step {
                    self.memory.poison(*statement, &Refusal::Draining);
                }
                if !item.step.is_silent() {
                    self.results.expect(Entry::Own(frame::packet(item.answer, b"\xff\0\0")));
                }
                continue;
            }
            let recorded = self.counts.recorded();
            self.forwarded += length;
            if let (Some(asked), Some(recorded)) = (relay::asked(item.step, &mut self.memory), recorded) {
                self.results.expect(Entry::Forwarded { recorded, asked, answer: item.answer });
            }
        }
        assert!(from == batch.bytes.len(), "bytes behind the last command of a batch");
    }

    fn data(&mut self, data: &Data) {
        let length: usize = data.contents.iter().map(Bytes::len).sum();
        assert!(length <= data.bytes.len() && !data.bytes.is_empty(), "data out of nowhere");
        if let Some(mut file) = self.results.lend_file() {
            if file.recorded().is_none()
                && let Some(recorded) = self.counts.recorded()
            {
                file.begin(recorded);
            }
            data.contents.iter().for_each(|content| file.add(content));
            self.results.return_file(file);
        }
        if data.ended {
            self.results.file_sent();
        }
        self.forwarded += data.bytes.len() as u64;
    }

    fn end(mut self) {
        self.results.end();
        assert!(self.forwarded <= self.sent, "more was forwarded than came");
        let counts = Arc::clone(&self.counts);
        drop(self);
        counts.assert_ended();
    }
}
