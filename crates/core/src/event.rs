//! An entry of the record, and how its fields are shown to whoever encodes it.
//!
//! The names here are those inside the ledger (`docs/formats.md`); what people see is the contract's JSON, which the
//! `store` crate makes from entries.

use crate::outcome::{Content, Outcome};
use crate::verdict::ChunkStream;
use crate::{
    AuthorizedBy, CloseReason, Identity, Masked, Operation, Parameter, RecordMode, Refusal, Session,
    Timestamp,
};

/// The kinds of entries, as the ledger writes them.
pub mod kind {
    /// A session began: who, from where, by which protocol.
    pub const SESSION_OPEN: &str = "session_open";
    /// What let it in, and to which target.
    pub const AUTHZ: &str = "authz";
    /// An operation, permitted.
    pub const INTENT: &str = "intent";
    /// An operation or a login, refused.
    pub const DENIED: &str = "denied";
    /// A piece of what streams through under an intent.
    pub const CHUNK: &str = "chunk";
    /// What the target made of an intent.
    pub const OUTCOME: &str = "outcome";
    /// An intent that got no answer: it may have run.
    pub const ABORT: &str = "abort";
    /// A session ended.
    pub const SESSION_CLOSE: &str = "session_close";
    /// Somebody read the record through the gateway.
    pub const READING: &str = "reading";
    /// Another token for an open session.
    pub const RENEWED: &str = "renewed";
    /// The configuration and the binary in force.
    pub const CONFIG: &str = "config";
    /// A flood of refusals from one address, counted.
    pub const FLOOD: &str = "flood";
}

/// The names of payload parts.
pub mod part {
    /// An operation's text, as sent.
    pub const TEXT: &str = "text";
    /// An operation's parameters: JSON, see [`Parameter::write_list`](crate::Parameter::write_list).
    pub const PARAMETERS: &str = "parameters";
    /// The target's error message.
    pub const ERROR: &str = "error";
    /// Notices and warnings: a JSON array of strings.
    pub const MESSAGES: &str = "messages";
    /// A chunk of what the client streamed.
    pub const CONTENT: &str = "content";
    /// A chunk of what the client received.
    pub const RESULT: &str = "result";
    /// An HTTP request: JSON, `{method, target, headers: [{name, value}], body}`; `body` is null where it streamed, and
    /// its chunks follow.
    pub const REQUEST: &str = "request";
    /// An MCP tool call: JSON, `{name, arguments}`.
    pub const TOOL: &str = "tool";
    /// An HTTP response: JSON, `{status, headers: [{name, value}]}`.
    pub const RESPONSE: &str = "response";
}

/// The value of a field. Integers stay within ±(2^53 − 1); there are no floats.
pub enum Value<'a> {
    /// Unknown, or not applicable.
    Null,
    /// A truth value.
    Bool(bool),
    /// A count.
    Unsigned(u64),
    /// A number.
    Signed(i64),
    /// Text.
    Text(&'a str),
    /// Bytes, written as base64url under a name that must end in `_b64`.
    Bytes(&'a [u8]),
    /// A moment, written as decimal nanoseconds in a string.
    Time(Timestamp),
    /// Several values.
    List(&'a [Value<'a>]),
    /// Fields of their own.
    Object(&'a dyn Fields),
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Null, Self::Unsigned)
    }
}

/// Takes an event's fields, in the order in which they are stored.
pub trait Visitor {
    /// One field.
    fn field(&mut self, name: &str, value: Value<'_>);
}

/// Something that shows its fields to a visitor, always in the same order.
pub trait Fields {
    /// Shows every field once.
    fn visit(&self, visitor: &mut dyn Visitor);
}

/// An entry of the record: what happened, about which session, with which fields and payload.
///
/// What the ledger reads back implements it too; that is what a sink gets.
pub trait AuditEvent: Send + Sync {
    /// One of [`kind`], or a kind of the ledger's own.
    fn kind(&self) -> &str;

    /// The entry that this one answers (an outcome its intent).
    fn answers(&self) -> Option<u64> {
        None
    }

    /// Shows the fields of this kind, in order. What every entry has (origin, index, times, session) is the ledger's.
    fn visit(&self, visitor: &mut dyn Visitor);

    /// Shows each part of the payload: its name (one of [`part`]) and its bytes.
    fn payload(&self, _each: &mut dyn FnMut(&str, &[u8])) {}
}

struct ClientFields<'a>(&'a crate::Client);

impl Fields for ClientFields<'_> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("addr", Value::Text(&self.0.address.to_string()));
        visitor.field("user", self.0.user.as_deref().into());
        visitor.field("app", self.0.application.as_deref().into());
    }
}

struct IdentityFields<'a>(&'a dyn Identity);

impl Fields for IdentityFields<'_> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        let id = self.0;
        visitor.field("idp", Value::Text(id.provider()));
        visitor.field("tid", Value::Text(id.tenant()));
        visitor.field("oid", Value::Text(id.object_id()));
        visitor.field("kind", Value::Text(id.kind().as_str()));
        visitor.field("name", id.name().into());
        visitor.field("app", id.app_id().into());
        match id.on_behalf_of() {
            None => visitor.field("obo", Value::Null),
            Some(person) => visitor.field("obo", Value::Object(&PersonFields(person))),
        }
        visitor.field("uti", id.token_id().into());
        visitor.field("exp", Value::Time(id.expires_at()));
        id.details(visitor);
    }
}

struct PersonFields<'a>(&'a crate::OnBehalfOf);

impl Fields for PersonFields<'_> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("oid", Value::Text(&self.0.object_id));
        visitor.field("name", self.0.name.as_deref().into());
    }
}

/// `session_open`: `proto, wanted, client{addr,user,app}, trace, id{idp,tid,oid,kind,name,app,obo,uti,exp,…}`.
pub struct SessionOpened<'a> {
    /// The session as its interceptor knows it.
    pub session: &'a dyn Session,
    /// Who it is; none where the token proved nobody.
    pub identity: Option<&'a dyn Identity>,
}

impl AuditEvent for SessionOpened<'_> {
    fn kind(&self) -> &str {
        kind::SESSION_OPEN
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("proto", Value::Text(self.session.protocol()));
        visitor.field("wanted", Value::Text(self.session.wanted()));
        visitor.field("client", Value::Object(&ClientFields(self.session.client())));
        visitor.field("trace", self.session.trace_id().into());
        match self.identity {
            None => visitor.field("id", Value::Null),
            Some(identity) => visitor.field("id", Value::Object(&IdentityFields(identity))),
        }
    }
}

/// `authz`: `conn, target, record, by{kind,name,id}, source`.
pub struct Authorized<'a> {
    /// The connection's name.
    pub connection: &'a str,
    /// `host:port[/database]`, for HTTP the URL.
    pub target: &'a str,
    /// How much is recorded.
    pub record: RecordMode,
    /// What let the identity in.
    pub by: &'a AuthorizedBy,
}

impl RecordMode {
    /// The word in configuration and record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Full => "full",
            Self::Results => "results",
        }
    }
}

impl Fields for AuthorizedBy {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("kind", Value::Text(self.kind));
        visitor.field("name", self.name.as_deref().into());
        visitor.field("id", self.id.as_deref().into());
    }
}

impl AuditEvent for Authorized<'_> {
    fn kind(&self) -> &str {
        kind::AUTHZ
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("conn", Value::Text(self.connection));
        visitor.field("target", Value::Text(self.target));
        visitor.field("record", Value::Text(self.record.as_str()));
        visitor.field("by", Value::Object(self.by));
        visitor.field("source", Value::Text(self.by.source.as_str()));
    }
}

/// `denied` of a login: `seq` null, `op` null, `conn` (null where the wanted name is no connection), `code, rule,
/// reason`.
pub struct LoginRefused<'a> {
    /// The connection, where the wanted name is one and the identity was proved.
    pub connection: Option<&'a str>,
    /// Its target.
    pub target: Option<&'a str>,
    /// Why.
    pub refusal: &'a Refusal,
}

impl AuditEvent for LoginRefused<'_> {
    fn kind(&self) -> &str {
        kind::DENIED
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("seq", Value::Null);
        visitor.field("op", Value::Null);
        visitor.field("conn", self.connection.into());
        visitor.field("target", self.target.into());
        refusal_fields(self.refusal, visitor);
    }
}

fn refusal_fields(refusal: &Refusal, visitor: &mut dyn Visitor) {
    visitor.field("code", Value::Text(refusal.code()));
    visitor.field("rule", refusal.rule().into());
    visitor.field("reason", Value::Text(&refusal.reason()));
}

/// `intent`: `seq, op, trace, params`; `denied` of an operation: the same, then `code, rule, reason`. Payload: `text`,
/// `parameters`, and the operation's own parts.
///
/// `params` is null where the parameters and parts are payload (or there are none), `{len, hmac_b64}` in
/// [`RecordMode::Commands`].
pub struct Requested<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// Why it was refused; none where it is permitted.
    pub refusal: Option<&'a Refusal>,
    /// Stands for parameters and parts where they are not kept: how many bytes they are in their JSON form, and a keyed
    /// digest of it (keyed, so that short values can't be guessed from it).
    pub withheld: Option<Withheld>,
}

/// Length and keyed digest of values that are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld {
    /// Bytes.
    pub length: u64,
    /// HMAC-SHA-256 under a key of the node.
    pub hmac: [u8; 32],
}

impl Fields for Withheld {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("len", Value::Unsigned(self.length));
        visitor.field("hmac_b64", Value::Bytes(&self.hmac));
    }
}

impl AuditEvent for Requested<'_> {
    fn kind(&self) -> &str {
        if self.refusal.is_some() { kind::DENIED } else { kind::INTENT }
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("seq", Value::Unsigned(self.operation.sequence));
        visitor.field("op", Value::Text(self.operation.kind));
        visitor.field("trace", self.operation.trace_id.as_deref().into());
        match &self.withheld {
            None => visitor.field("params", Value::Null),
            Some(withheld) => visitor.field("params", Value::Object(withheld)),
        }
        if let Some(refusal) = self.refusal {
            refusal_fields(refusal, visitor);
        }
    }

    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        if let Some(text) = &self.operation.text {
            each(part::TEXT, text);
        }
        if let (None, Some(parameters)) = (&self.withheld, &self.operation.parameters) {
            let mut list = Vec::with_capacity(32 + parameters.len() * 40);
            Parameter::write_list(parameters, &mut list);
            each(part::PARAMETERS, &list);
        }
        if self.withheld.is_none() {
            for part in &self.operation.parts {
                each(part.name, &part.json);
            }
        }
    }
}

/// `chunk`: answers its intent; `seq, stream`. Payload: `content` or `result`.
pub struct Chunk<'a> {
    /// The intent's entry.
    pub entry: u64,
    /// The operation's place in its session.
    pub sequence: u64,
    /// Which way it streams.
    pub stream: ChunkStream,
    /// The piece.
    pub bytes: &'a [u8],
}

impl AuditEvent for Chunk<'_> {
    fn kind(&self) -> &str {
        kind::CHUNK
    }

    fn answers(&self) -> Option<u64> {
        Some(self.entry)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("seq", Value::Unsigned(self.sequence));
        visitor.field("stream", Value::Text(self.stream.as_str()));
    }

    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        each(self.stream.as_str(), self.bytes);
    }
}

/// `outcome`: answers its intent; `seq, status, rows, bytes, dur_us, code, content{len,sha256_b64}`, and where masks were
/// in force `masked:[{column,rule,with,cells}], scrubbed, inference`. Payload: `error`
/// (the message), `messages` (a JSON array).
pub struct Completed<'a> {
    /// The intent's entry.
    pub entry: u64,
    /// The operation's place in its session.
    pub sequence: u64,
    /// How much is recorded: with [`RecordMode::Commands`] status and code alone.
    pub record: RecordMode,
    /// From the arrival of the operation to this outcome, in microseconds.
    pub duration_us: u64,
    /// The outcome.
    pub outcome: &'a Outcome,
}

impl Fields for Content {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("len", Value::Unsigned(self.length));
        visitor.field("sha256_b64", Value::Bytes(&self.sha256));
    }
}

/// `column, rule, with, cells`.
impl Fields for Masked {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("column", Value::Text(&self.column));
        visitor.field("rule", Value::Text(&self.rule));
        visitor.field("with", Value::Text(self.with.as_str()));
        visitor.field("cells", Value::Unsigned(self.cells));
    }
}

impl AuditEvent for Completed<'_> {
    fn kind(&self) -> &str {
        kind::OUTCOME
    }

    fn answers(&self) -> Option<u64> {
        Some(self.entry)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        let full = self.record != RecordMode::Commands;
        visitor.field("seq", Value::Unsigned(self.sequence));
        visitor.field("status", Value::Text(self.outcome.status.as_str()));
        visitor.field("rows", self.outcome.rows.filter(|_| full).into());
        visitor.field("bytes", self.outcome.bytes.filter(|_| full).into());
        visitor.field("dur_us", Some(self.duration_us).filter(|_| full).into());
        visitor.field("code", self.outcome.error.as_ref().map(|error| error.code.as_str()).into());
        match &self.outcome.content {
            None => visitor.field("content", Value::Null),
            Some(content) => visitor.field("content", Value::Object(content)),
        }
        if let Some(masking) = &self.outcome.masking {
            let cells: Vec<_> = masking.cells.iter().map(|masked| Value::Object(masked)).collect();
            visitor.field("masked", Value::List(&cells));
            visitor.field("scrubbed", Value::Bool(masking.scrubbed));
            visitor.field("inference", Value::Bool(masking.inference));
        }
    }

    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        if self.record == RecordMode::Commands {
            return;
        }
        if let Some(error) = &self.outcome.error {
            each(part::ERROR, error.message.as_bytes());
        }
        if !self.outcome.messages.is_empty() {
            let mut list = vec![b'['];
            for (place, message) in self.outcome.messages.iter().enumerate() {
                if place > 0 {
                    list.push(b',');
                }
                crate::json::string(&mut list, message);
            }
            list.push(b']');
            each(part::MESSAGES, &list);
        }
        for part in &self.outcome.parts {
            each(part.name, &part.json);
        }
    }
}

/// `abort`: answers its intent; `seq, result` (`unknown`: the target may have run it).
pub struct Aborted {
    /// The intent's entry.
    pub entry: u64,
    /// The operation's place in its session.
    pub sequence: u64,
}

impl AuditEvent for Aborted {
    fn kind(&self) -> &str {
        kind::ABORT
    }

    fn answers(&self) -> Option<u64> {
        Some(self.entry)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("seq", Value::Unsigned(self.sequence));
        visitor.field("result", Value::Text("unknown"));
    }
}

/// `renewed`: `id{…}` as in `session_open`, with the new token's id and end; where the token was refused also `code, rule,
/// reason`, and `id` null unless it proved somebody.
pub struct Renewed<'a> {
    /// Who the new token is of.
    pub identity: Option<&'a dyn Identity>,
    /// Why the session goes on with the token that it had.
    pub refusal: Option<&'a Refusal>,
}

impl AuditEvent for Renewed<'_> {
    fn kind(&self) -> &str {
        kind::RENEWED
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        match self.identity {
            None => visitor.field("id", Value::Null),
            Some(identity) => visitor.field("id", Value::Object(&IdentityFields(identity))),
        }
        if let Some(refusal) = self.refusal {
            refusal_fields(refusal, visitor);
        }
    }
}

/// `session_close`: `reason`; the ledger adds the session's counts (`intents, outcomes, aborts, denied`).
pub struct SessionClosed {
    /// Why.
    pub reason: CloseReason,
}

impl AuditEvent for SessionClosed {
    fn kind(&self) -> &str {
        kind::SESSION_CLOSE
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("reason", Value::Text(self.reason.as_str()));
    }
}
