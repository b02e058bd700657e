//! A client's JSON-RPC messages, read so that there is one way to read them.
//!
//! Everything is taken as sent; nothing is decoded and encoded again. Refused is what a server could read otherwise: a key
//! that is there twice at any depth, two keys of the envelope or of the parameters that differ in case alone (some
//! servers match without regard to it), more than 128 levels, bytes that are no JSON.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use verbatim_core::{Part, trace};

/// How many messages a batch may have.
const BATCH_MAX: usize = 1000;
/// How long an id may be, as sent.
const ID_MAX: usize = 256;
/// The keys of an envelope, which no other spelling may shadow.
const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// The messages of one body.
#[derive(Debug)]
pub(crate) struct Messages {
    /// They came as an array.
    pub(crate) batch: bool,
    /// At least one.
    pub(crate) all: Vec<Message>,
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// As sent.
    pub(crate) raw: Bytes,
    /// Of a request, as sent.
    pub(crate) id: Option<String>,
    /// Of a request or a notification.
    pub(crate) method: Option<String>,
    /// Of `tools/call`: its name.
    pub(crate) tool: Option<String>,
    /// Of `tools/call`: `{ "name", "arguments" }`, as sent.
    pub(crate) part: Option<Part>,
    /// A W3C trace id in `_meta`.
    pub(crate) trace_id: Option<String>,
}

impl Message {
    /// The operation's kind.
    pub(crate) fn kind(&self) -> &'static str {
        if self.part.is_some() { "tool_call" } else { "request" }
    }

    pub(crate) fn is(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WithMeta<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it, in words without any of it.
pub(crate) fn read(body: &Bytes) -> Result<Messages, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is no UTF-8")?;
    let batch = text.trim_ascii_start().starts_with('[');
    let level = if batch { Level::Batch } else { Level::Envelope };
    let mut reader = serde_json::Deserializer::from_str(text);
    let strict = Strict(level).deserialize(&mut reader).and_then(|()| reader.end());
    strict.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => "a key is there twice, or in two spellings",
        _ => "the body is no JSON, or nested too deep",
    })?;
    let raws: Vec<&RawValue> = if batch {
        serde_json::from_str(text).map_err(|_| "the body is no JSON")?
    } else {
        vec![serde_json::from_str(text).map_err(|_| "the body is no JSON")?]
    };
    if raws.is_empty() || raws.len() > BATCH_MAX {
        return Err("a batch that is empty or too long");
    }
    let all = raws.into_iter().map(|raw| message(body, raw.get())).collect::<Result<_, _>>()?;
    Ok(Messages { batch, all })
}

fn message(body: &Bytes, raw: &str) -> Result<Message, &'static str> {
    let envelope: Envelope<'_> =
        serde_json::from_str(raw).map_err(|_| "a message that is no JSON-RPC object")?;
    if envelope.jsonrpc.as_deref() != Some("2.0") {
        return Err("a message that is not of JSON-RPC 2.0");
    }
    let id = match envelope.id.map(RawValue::get) {
        None => None,
        Some(id) if id.len() > ID_MAX || id.starts_with(['{', '[', 't', 'f']) => {
            return Err("an id that is neither a number nor a short string");
        }
        Some(id) => Some(id.to_owned()),
    };
    let mut message = Message {
        raw: body.slice_ref(raw.as_bytes()),
        id,
        method: envelope.method.map(Cow::into_owned),
        tool: None,
        part: None,
        trace_id: None,
    };
    let Some(params) = envelope.params.map(RawValue::get) else {
        if message.is("tools/call") {
            return Err("a tool call without a name");
        }
        return Ok(message);
    };
    if message.is("tools/call") {
        let call: Call<'_> = serde_json::from_str(params).map_err(|_| "a tool call without a name")?;
        let name: String =
            serde_json::from_str(call.name.get()).map_err(|_| "a tool whose name is no string")?;
        let arguments = call.arguments.map_or("null", RawValue::get);
        let json = format!("{{\"name\":{},\"arguments\":{arguments}}}", call.name.get());
        message.part = Some(Part { name: "tool", json: json.into() });
        message.tool = Some(name);
    }
    let meta = serde_json::from_str::<WithMeta<'_>>(params).ok().and_then(|params| params.meta);
    message.trace_id = meta
        .and_then(|meta| serde_json::from_str::<Meta<'_>>(meta.get()).ok())
        .and_then(|meta| trace::traceparent(&meta.traceparent?));
    Ok(message)
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The array of a batch.
    Batch,
    /// A message.
    Envelope,
    /// Its `params`.
    Parameters,
    /// Anything else.
    Value,
}

/// Reads a value for nothing but its form.
#[derive(Clone, Copy)]
struct Strict(Level);

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON without a key that is there twice")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let level = if self.0 == Level::Batch { Level::Envelope } else { Level::Value };
        while seq.next_element_seed(Strict(level))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let known = ENVELOPE.iter().find(|known| known.eq_ignore_ascii_case(&key));
            let level = match self.0 {
                Level::Envelope if known == Some(&"params") => Level::Parameters,
                _ => Level::Value,
            };
            let folded = match self.0 {
                Level::Envelope if known.is_some_and(|known| *known != key) => {
                    return Err(A::Error::custom("a key in another spelling"));
                }
                Level::Envelope | Level::Parameters => key.to_lowercase().into(),
                Level::Batch | Level::Value => key,
            };
            if !keys.insert(folded) {
                return Err(A::Error::custom("a key that is there twice"));
            }
            map.next_value_seed(Strict(level))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Message, &'static str> {
        read(&Bytes::copy_from_slice(text.as_bytes())).map(|messages| messages.all[0].clone())
    }

    #[test]
    fn a_call_is_taken_as_sent() {
        let text = r#" { "jsonrpc":"2.0", "id" : 7, "method":"tools\/call", "params":{"name":"\u0061dd","arguments":{ "a" : 1.50 },
            "_meta":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}} "#;
        let call = one(text).unwrap();
        assert_eq!(call.raw, text.trim().as_bytes());
        assert_eq!(
            (call.kind(), call.id.as_deref(), call.tool.as_deref()),
            ("tool_call", Some("7"), Some("add"))
        );
        assert_eq!(call.part.unwrap().json, r#"{"name":"\u0061dd","arguments":{ "a" : 1.50 }}"#);
        assert_eq!(call.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        let list = one(r#"{"jsonrpc":"2.0","id":"x","method":"tools/list"}"#).unwrap();
        assert_eq!((list.kind(), list.id.as_deref()), ("request", Some("\"x\"")));
        let answer = one(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).unwrap();
        assert_eq!(answer.method, None);
    }

    #[test]
    fn a_batch_is_cut_into_its_messages() {
        let body = Bytes::from_static(
            br#"[ {"jsonrpc":"2.0","id":1,"method":"ping"} ,{"jsonrpc":"2.0","method":"notifications/x"}]"#,
        );
        let messages = read(&body).unwrap();
        assert!(messages.batch);
        assert_eq!(messages.all[0].raw, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        assert_eq!(messages.all[1].raw, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}{}}}"#,
            "[".repeat(200),
            "]".repeat(200)
        );
        for text in [
            "",
            "{",
            "[]",
            "7",
            "\"x\"",
            "[7]",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"Method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\ud800"}}"#,
            &deep,
        ] {
            assert!(one(text).is_err(), "{text}");
        }
        assert!(read(&Bytes::from_static(b"\xff")).is_err());
        // Case matters in arguments, which are the tool's own.
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"X":2}}}"#;
        assert!(one(text).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_fail(text in "[\\[\\]{}\":,a-z0-9\\\\ ]{0,80}") {
            drop(one(&text));
        }
    }
}
