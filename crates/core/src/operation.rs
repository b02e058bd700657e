//! One command of a session, as the client sent it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Meaning, Refusal, json};

/// How much of a connection's operations is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum RecordMode {
    /// Texts, order, status and error code; values and content as length and digest.
    Commands,
    /// Also parameters, content sent, rows, bytes, duration and messages.
    #[default]
    Full,
    /// Also what the client received.
    Results,
}

/// One command of a session: its text, its parameters, its place in the order.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its place among the session's operations, from 1 (see [`OpenSession::next_sequence`](crate::OpenSession)).
    pub sequence: u64,
    /// The wire's own word: `query`, `prepare`, `execute`, `copy_data`, `cancel`, …
    pub kind: &'static str,
    /// The command's bytes as sent, in whatever encoding; none where the operation has no text.
    pub text: Option<Bytes>,
    /// The bound parameters, in order; none where the operation takes none.
    pub parameters: Option<Vec<Parameter>>,
    /// What the protocol says of it beyond text and parameters: an HTTP request's fields, an MCP tool's arguments.
    pub parts: Vec<Part>,
    /// A W3C trace id (32 hexadecimal digits), where the client sent one.
    pub trace_id: Option<String>,
    /// Why the interceptor itself cannot let it through (a message that nobody can read, a limit of its memory). The
    /// stack judges the operation as any other, and refuses it with this where nothing else spoke against it.
    pub refused: Option<Refusal>,
    /// What it means, where the stack may want to know ([`OpenSession::masks`](crate::OpenSession::masks)).
    pub meaning: Option<Arc<dyn Meaning>>,
}

impl Operation {
    /// An operation of which only its place and kind are known.
    pub const fn new(sequence: u64, kind: &'static str) -> Self {
        Self {
            sequence,
            kind,
            text: None,
            parameters: None,
            parts: Vec::new(),
            trace_id: None,
            refused: None,
            meaning: None,
        }
    }
}

/// A structured extra of an operation or an outcome, stored as payload under its name; where values are not kept it isn't
/// either. Documents show those that they know: `request`, `tool` and `response`.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// One of [`event::part`](crate::event::part)'s, or a name of the protocol's own.
    pub name: &'static str,
    /// One JSON value.
    pub json: Bytes,
}

/// Prints name and length, never content.
impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.json.len())
    }
}

/// A bound value.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The server's name of its type (`int4`, `_text`), `unknown` where nobody said.
    pub type_name: Cow<'static, str>,
    /// The value.
    pub value: ParameterValue,
}

/// The value of a [`Parameter`].
#[derive(Clone, PartialEq, Eq)]
pub enum ParameterValue {
    /// SQL NULL, or the protocol's like.
    Null,
    /// The text that the server would print.
    Text(String),
    /// Bytes, or a value that nothing here decodes.
    Binary(Bytes),
}

/// Prints kind and length, never content.
impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            ParameterValue::Null => write!(f, "{} null", self.type_name),
            ParameterValue::Text(text) => write!(f, "{} ({} bytes)", self.type_name, text.len()),
            ParameterValue::Binary(bytes) => write!(f, "{} ({} bytes, binary)", self.type_name, bytes.len()),
        }
    }
}

impl Parameter {
    /// Appends a list of parameters in the form that the contract prints:
    /// `[{"type":"int4","value":"7"},{"type":"text","value":null},{"type":"bytea","base64":"…"}]`.
    pub fn write_list(parameters: &[Self], out: &mut Vec<u8>) {
        out.push(b'[');
        for (place, parameter) in parameters.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b"{\"type\":" } else { b",{\"type\":" });
            json::string(out, &parameter.type_name);
            match &parameter.value {
                ParameterValue::Null => out.extend_from_slice(b",\"value\":null"),
                ParameterValue::Text(text) => {
                    out.extend_from_slice(b",\"value\":");
                    json::string(out, text);
                }
                ParameterValue::Binary(bytes) => {
                    out.extend_from_slice(b",\"base64\":");
                    json::base64(out, bytes);
                }
            }
            out.push(b'}');
        }
        out.push(b']');
    }
}
