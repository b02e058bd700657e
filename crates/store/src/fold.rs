//! Entries of the ledger, folded into what people see of a session and of an operation.
//!
//! An operation is one `intent` or `denied` entry, the `chunk` entries that continue or stream under it, and the one
//! entry that ends it. Which label its text gets (`statement`) is asked at reading, so that a better parser speaks
//! about old records too, and nothing derived is in the ledger.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use serde_json::value::RawValue;
use verbatim_core::Timestamp;
use verbatim_core::event::{AuditEvent as _, kind, part};
use verbatim_ledger::Entry;

use crate::view::{
    ApprovalView, AuthorizedByView, ClientView, ContentView, ErrorView, IdentityView, MaskedView,
    OperationView, OutcomeView, PersonView, RefusalView, SessionView, WithheldView,
};

/// What a parser makes of a command: protocol and text in, `select`, `update`, … in lower case out; none where it makes
/// nothing of it. The gateway passes it in, so that nothing here parses.
pub type Labels = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// How much of what a client streamed becomes an operation's text in memory: 16 MiB. An operation with more has no text
/// there, only its content's length and digest; [`Index::write_session`](crate::Index::write_session) writes all of it.
pub const CONTENT_SHOWN_BYTES_MAX: u64 = 16 << 20;

/// The node in a ledger's origin, `<organisation>/verbatim/<node>/<generation>`.
fn node(origin: &str) -> String {
    origin.split('/').nth(2).unwrap_or(origin).to_owned()
}

fn text(fields: &Value, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn word(fields: &Value, name: &str) -> String {
    text(fields, name).unwrap_or_default()
}

fn number(fields: &Value, name: &str) -> Option<u64> {
    fields.get(name).and_then(Value::as_u64)
}

/// A moment as the envelope writes it: decimal nanoseconds in a string.
fn moment(fields: &Value, name: &str) -> Option<String> {
    let nanos = fields.get(name)?.as_str()?.parse().ok()?;
    Some(Timestamp::from_nanos(nanos).to_string())
}

fn object<'a>(fields: &'a Value, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| value.is_object())
}

/// Base64url without padding in, hexadecimal out; empty where it is no base64url.
fn hexadecimal(fields: &Value, name: &str) -> String {
    let bytes = fields.get(name).and_then(Value::as_str).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn person(fields: &Value) -> PersonView {
    PersonView { object_id: word(fields, "oid"), name: text(fields, "name") }
}

fn refusal(fields: &Value) -> RefusalView {
    RefusalView { code: word(fields, "code"), rule: text(fields, "rule"), reason: word(fields, "reason") }
}

fn identity(fields: &Value) -> IdentityView {
    IdentityView {
        provider: word(fields, "idp"),
        tenant: word(fields, "tid"),
        object_id: word(fields, "oid"),
        kind: word(fields, "kind"),
        name: text(fields, "name"),
        app_id: text(fields, "app"),
        on_behalf_of: object(fields, "obo").map(person),
        token_id: text(fields, "uti"),
        expires_at: moment(fields, "exp").unwrap_or_else(|| Timestamp::from_nanos(0).to_string()),
    }
}

/// The session that a `session_open` entry opens; none for another entry.
pub fn open(entry: &Entry) -> Option<SessionView> {
    let id = entry.session().filter(|_| entry.kind() == kind::SESSION_OPEN)?;
    let fields = entry.fields();
    let client = object(fields, "client");
    Some(SessionView {
        id: id.to_string(),
        connection: None,
        protocol: word(fields, "proto"),
        target: None,
        identity: object(fields, "id").map(identity),
        authorized_by: None,
        authorization_source: None,
        client: client.map_or_else(ClientView::default, |client| ClientView {
            address: text(client, "addr"),
            user: text(client, "user"),
            application: text(client, "app"),
        }),
        trace_id: text(fields, "trace"),
        opened_at: entry.time().to_string(),
        closed_at: None,
        close_reason: None,
        refusal: None,
        node: node(entry.origin()),
        complete: false,
        wanted: text(fields, "wanted"),
    })
}

/// Adds to `session` what a later entry of it says: `authz`, the `denied` of a login, `session_close`. Returns whether
/// the entry says anything of the session itself.
///
/// `aborted`: how many of its operations were aborted, for `complete`.
pub fn advance(session: &mut SessionView, entry: &Entry, aborted: u64) -> bool {
    let fields = entry.fields();
    match entry.kind() {
        kind::AUTHZ => {
            session.connection = text(fields, "conn");
            session.target = text(fields, "target");
            session.authorized_by = object(fields, "by").map(|by| AuthorizedByView {
                kind: word(by, "kind"),
                name: text(by, "name"),
                id: text(by, "id"),
            });
            session.authorization_source = text(fields, "source");
        }
        kind::DENIED if is_login(entry) => {
            session.connection = text(fields, "conn");
            session.target = text(fields, "target");
            session.refusal = Some(refusal(fields));
        }
        kind::SESSION_CLOSE => {
            session.closed_at = Some(entry.time().to_string());
            session.close_reason = text(fields, "reason");
            session.complete = aborted == 0;
        }
        _ => return false,
    }
    true
}

/// Whether a `denied` entry refuses a login: it has no operation's number.
pub fn is_login(entry: &Entry) -> bool {
    sequence(entry).is_none()
}

/// The operation that an entry belongs to, by its place in the session.
pub fn sequence(entry: &Entry) -> Option<u64> {
    number(entry.fields(), "seq")
}

/// The bytes of a part of an entry's payload; none where it has no such part.
pub fn bytes<'a>(entry: &'a Entry, name: &str) -> Option<&'a [u8]> {
    entry.parts().iter().find(|part| part.name == name).map(|part| part.bytes.as_ref())
}

/// The entries of one operation.
pub struct OperationEntries {
    /// Its `intent` or `denied`.
    pub request: Entry,
    /// The `chunk`s that belong in its document: continued texts, content of at most [`CONTENT_SHOWN_BYTES_MAX`].
    pub chunks: Vec<Entry>,
    /// Its `outcome` or `abort`.
    pub end: Option<Entry>,
}

impl OperationEntries {
    /// The operation as people see it.
    pub fn view(&self, protocol: &str, labels: &Labels) -> OperationView {
        let fields = self.request.fields();
        let (text_shown, base64) = match self.text() {
            None => (None, None),
            Some(text) => match String::from_utf8(text) {
                Ok(text) => (Some(text), None),
                Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
            },
        };
        let requested_at = self.request.time().to_string();
        let refused = self.request.kind() == kind::DENIED;
        let completed_at = match &self.end {
            Some(end) => Some(end.time().to_string()),
            None => refused.then(|| requested_at.clone()),
        };
        let end = self.end.as_ref().map(Entry::fields);
        // What streams under an operation that has a text of its own is no statement, and neither is a COPY's data.
        let is_command = bytes(&self.request, part::TEXT).is_some();
        OperationView {
            sequence: sequence(&self.request).unwrap_or_default(),
            kind: word(fields, "op"),
            statement: text_shown.as_deref().filter(|_| is_command).and_then(|text| labels(protocol, text)),
            text: text_shown,
            base64,
            parameters: self.json(part::PARAMETERS),
            request: self.http_request(),
            tool: self.json(part::TOOL),
            response: self.end.as_ref().and_then(|end| raw(bytes(end, part::RESPONSE)?.to_vec())),
            requested_at,
            completed_at,
            trace_id: text(fields, "trace"),
            outcome: self.outcome(),
            masked: end.map_or_else(Vec::new, masked),
            approval: object(fields, "approval").map(approval),
            content: end
                .and_then(|end| object(end, "content"))
                .map(|content| self.content(content, is_command)),
            parameters_withheld: object(fields, "params").map(|params| WithheldView {
                length: number(params, "len").unwrap_or_default(),
                hmac: hexadecimal(params, "hmac_b64"),
            }),
        }
    }

    /// The operation's text, whole: the entry's own, and what continues it; for streamed data, the data.
    fn text(&self) -> Option<Vec<u8>> {
        self.joined(part::TEXT).or_else(|| self.joined(part::CONTENT))
    }

    fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let mut all = bytes(&self.request, name).map(<[u8]>::to_vec);
        for chunk in &self.chunks {
            if let Some(more) = bytes(chunk, name) {
                all.get_or_insert_default().extend_from_slice(more);
            }
        }
        all
    }

    /// What streamed under it; shown here where it is neither the operation's text nor a request's body.
    fn content(&self, fields: &Value, is_command: bool) -> ContentView {
        let shown = is_command && bytes(&self.request, part::REQUEST).is_none();
        let all = shown.then(|| self.joined(part::CONTENT)).flatten();
        let (value, base64) = match all.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        ContentView {
            length: number(fields, "len").unwrap_or_default(),
            sha256: hexadecimal(fields, "sha256_b64"),
            value,
            base64,
        }
    }

    /// A part that is JSON, as it was recorded.
    fn json(&self, name: &str) -> Option<Box<RawValue>> {
        raw(self.joined(name)?)
    }

    /// The request, with the body that streamed after it.
    fn http_request(&self) -> Option<Box<RawValue>> {
        let request = self.json(part::REQUEST)?;
        let Some(streamed) = self.joined(part::CONTENT) else { return Some(request) };
        let mut fields: serde_json::Map<String, Value> = serde_json::from_str(request.get()).ok()?;
        let body = match String::from_utf8(streamed) {
            Ok(text) => serde_json::json!({ "type": "text", "value": text }),
            Err(error) => {
                serde_json::json!({ "type": "bytes", "base64": STANDARD.encode(error.as_bytes()) })
            }
        };
        fields.insert("body".to_owned(), body);
        serde_json::value::to_raw_value(&fields).ok()
    }

    fn outcome(&self) -> Option<OutcomeView> {
        let mut outcome = OutcomeView {
            status: String::new(),
            rows: None,
            bytes: None,
            duration_us: None,
            error: None,
            refusal: None,
            messages: Vec::new(),
        };
        if self.request.kind() == kind::DENIED {
            outcome.status = "refused".to_owned();
            outcome.refusal = Some(refusal(self.request.fields()));
            return Some(outcome);
        }
        let end = self.end.as_ref()?;
        let fields = end.fields();
        if end.kind() == kind::ABORT {
            outcome.status = "aborted".to_owned();
            return Some(outcome);
        }
        outcome.status = word(fields, "status");
        outcome.rows = number(fields, "rows");
        outcome.bytes = number(fields, "bytes");
        outcome.duration_us = number(fields, "dur_us");
        outcome.error = text(fields, "code").map(|code| ErrorView {
            code,
            message: bytes(end, part::ERROR).and_then(|message| String::from_utf8(message.to_vec()).ok()),
        });
        outcome.messages =
            bytes(end, part::MESSAGES).and_then(|list| serde_json::from_slice(list).ok()).unwrap_or_default();
        Some(outcome)
    }
}

fn raw(json: Vec<u8>) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(json).ok()?).ok()
}

/// The masks that an outcome names, in `masked`: `[{column, rule, with, cells}]`.
pub fn masked(outcome: &Value) -> Vec<MaskedView> {
    let list = outcome.get("masked").and_then(Value::as_array);
    let view = |mask: &Value| MaskedView {
        column: word(mask, "column"),
        rule: word(mask, "rule"),
        with: word(mask, "with"),
        cells: number(mask, "cells").unwrap_or_default(),
    };
    list.map_or_else(Vec::new, |list| list.iter().map(view).collect())
}

/// The decision that a request names, in `approval`: `{id, rule, asked, decided, decision, by{oid,name}, reason}`.
fn approval(fields: &Value) -> ApprovalView {
    ApprovalView {
        id: word(fields, "id"),
        rule: word(fields, "rule"),
        asked_at: moment(fields, "asked").unwrap_or_else(|| Timestamp::from_nanos(0).to_string()),
        decided_at: moment(fields, "decided"),
        decision: text(fields, "decision"),
        by: object(fields, "by").map(person),
        reason: text(fields, "reason"),
    }
}
