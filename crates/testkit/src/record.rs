//! What the server logged against what the gateway recorded: command by command, in order, parameters included.
//!
//! The server has `log_statement = all` and a CSV log (PostgreSQL's documentation, section 20.8). Its lines map to operations thus:
//!
//! | log | operation |
//! | --- | --- |
//! | `statement: TEXT` | `query` |
//! | `execute NAME: TEXT`, `execute fetch from NAME: TEXT`, with `parameters: $1 = '…'` | `execute` |
//! | `fastpath function call: …` | `function_call` |
//! | an ERROR about TEXT that no such line announced (a parse or bind error) | `query`, `execute` or `prepare`, with that error |
//!
//! The server logs no `prepare` that succeeds, no `copy_data`, no `cancel`, and nothing of what was `skipped` or
//! `refused`; an `aborted` operation may have reached it or not.
#![expect(clippy::indexing_slicing, reason = "a JSON value answers null for a key that it does not have")]

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// How the server came to log a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    /// A simple query.
    Statement,
    /// An Execute message, with its parameters.
    Execute,
    /// A FunctionCall message.
    FunctionCall,
    /// Only its error: it did not get as far as being run.
    Failed,
}

/// A command in the server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// How it was logged.
    pub logged: Logged,
    /// Its text; for a function call the server's words for it.
    pub text: String,
    /// The bound parameters, as the server prints them; NULL is none.
    pub parameters: Vec<Option<String>>,
    /// The SQLSTATE, if it failed.
    pub error: Option<String>,
}

/// The commands of one backend, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The log's own id of it.
    pub id: String,
    /// The last `application_name` that it logged with.
    pub application: String,
    /// Its database.
    pub database: String,
    /// What it was told.
    pub commands: Vec<Command>,
}

/// Reads a CSV log: every backend that logged a command, in the order of their first one.
///
/// # Errors
/// A line is no line of a PostgreSQL CSV log.
pub fn parse_log(csv: &str) -> Result<Vec<Backend>> {
    let mut backends: Vec<Backend> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for row in csv_rows(csv) {
        let column = |place: usize| {
            row.get(place).map(String::as_str).with_context(|| format!("a short row: {row:?}"))
        };
        let (severity, tag) = (column(11)?, column(7)?);
        let (message, detail, query) = (column(13)?, column(14)?, column(19)?);
        let Some(entry) = entry(severity, column(12)?, message, detail, query)? else { continue };
        let id = column(5)?;
        let place = *places.entry(id.to_owned()).or_insert_with(|| {
            backends.push(Backend {
                id: id.to_owned(),
                application: String::new(),
                database: row.get(2).cloned().unwrap_or_default(),
                commands: Vec::new(),
            });
            backends.len() - 1
        });
        let backend = backends.get_mut(place).context("a backend")?;
        column(22)?.clone_into(&mut backend.application);
        // An error belongs to the command before it, unless it is about parsing or binding the next one.
        let announced = backend.commands.last_mut().filter(|last| {
            entry.logged == Logged::Failed
                && last.error.is_none()
                && !matches!(tag, "PARSE" | "BIND")
                && (last.text == entry.text || last.logged == Logged::FunctionCall)
        });
        match announced {
            Some(last) => last.error = entry.error,
            None => backend.commands.push(entry),
        }
    }
    Ok(backends)
}

fn entry(severity: &str, state: &str, message: &str, detail: &str, query: &str) -> Result<Option<Command>> {
    let command =
        |logged, text: &str, parameters| Command { logged, text: text.to_owned(), parameters, error: None };
    Ok(match severity {
        "LOG" => {
            if let Some(text) = message.strip_prefix("statement: ") {
                Some(command(Logged::Statement, text, Vec::new()))
            } else if let Some(rest) = message.strip_prefix("execute ") {
                let (_, text) = rest.split_once(": ").context("execute without a text")?;
                Some(command(Logged::Execute, text, parameters(detail)?))
            } else {
                message
                    .strip_prefix("fastpath function call: ")
                    .map(|text| command(Logged::FunctionCall, text, Vec::new()))
            }
        }
        "ERROR" if !query.is_empty() || message.contains("fastpath") => {
            Some(Command { error: Some(state.to_owned()), ..command(Logged::Failed, query, Vec::new()) })
        }
        _ => None,
    })
}

/// Reads `parameters: $1 = 'it''s', $2 = NULL` (with a capital since PostgreSQL 16).
fn parameters(detail: &str) -> Result<Vec<Option<String>>> {
    let list = detail.strip_prefix("parameters: ").or_else(|| detail.strip_prefix("Parameters: "));
    let Some(mut rest) = list else { return Ok(Vec::new()) };
    let mut values = Vec::new();
    loop {
        let name = format!("${} = ", values.len() + 1);
        rest =
            rest.strip_prefix(name.as_str()).with_context(|| format!("expected {name:?} in {detail:?}"))?;
        if let Some(after) = rest.strip_prefix("NULL") {
            values.push(None);
            rest = after;
        } else {
            let mut value = String::new();
            rest = rest.strip_prefix('\'').with_context(|| format!("expected a quote in {detail:?}"))?;
            loop {
                let (piece, after) =
                    rest.split_once('\'').with_context(|| format!("an open quote in {detail:?}"))?;
                value.push_str(piece);
                rest = after;
                match rest.strip_prefix('\'') {
                    Some(after) => (value.push('\''), rest = after),
                    None => break,
                };
            }
            values.push(Some(value));
        }
        match rest.strip_prefix(", ") {
            Some(after) => rest = after,
            None => break,
        }
    }
    ensure!(rest.is_empty(), "unexpected {rest:?} in {detail:?}");
    Ok(values)
}

/// The rows of a CSV text (RFC 4180); a last row that is not finished is left out.
fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            _ => field.push(character),
        }
    }
    rows
}

/// Brings a value of this type into the form that the server prints, asking it: what a client sends as text need not
/// be in that form. Several, where the type is `unknown`: the server took it for one of them.
pub type Normalise<'a> = &'a dyn Fn(&str, &str) -> Vec<String>;

/// Compares one backend's commands with a session as `sessions show --json` prints it.
///
/// # Errors
/// The first difference.
pub fn compare(backend: &Backend, shown: &Value, normalise: Normalise<'_>) -> Result<()> {
    let operations = shown["operations"].as_array().context("operations")?;
    let mut commands = backend.commands.iter().peekable();
    for (place, operation) in operations.iter().enumerate() {
        ensure!(
            operation["sequence"] == place + 1,
            "sequence {} at place {}",
            operation["sequence"],
            place + 1
        );
        let at = || format!("operation {}: {operation}", place + 1);
        let status = operation["outcome"]["status"].as_str().with_context(at)?;
        match (operation["kind"].as_str().with_context(at)?, status) {
            ("copy_data" | "cancel", _) | (_, "refused" | "skipped") | ("prepare", "ok") => {}
            // An Execute of nothing is answered before the server would log it.
            ("execute", "ok") if operation["text"] == "" => {}
            // A portal or statement that the server doesn't know: it has no text that it could log.
            (_, "error") if operation["text"].is_null() && operation["kind"] != "function_call" => {}
            (_, "aborted") => {
                commands.next_if(|command| same(command, operation, normalise).is_ok());
            }
            _ => {
                let command = commands.next().with_context(at).context("the server logged nothing more")?;
                same(command, operation, normalise).with_context(at)?;
                let code = operation["outcome"]["error"]["code"].as_str();
                ensure!(command.error.as_deref() == code, "{command:?} at {}", at());
            }
        }
    }
    match commands.next() {
        None => Ok(()),
        Some(command) => bail!("the server ran what is not in the record: {command:?}"),
    }
}

fn same(command: &Command, operation: &Value, normalise: Normalise<'_>) -> Result<()> {
    let kind = operation["kind"].as_str().unwrap_or_default();
    let fits = match command.logged {
        Logged::Statement => kind == "query",
        Logged::Execute => kind == "execute",
        Logged::FunctionCall => {
            return if kind == "function_call" { Ok(()) } else { bail!("{command:?} is a {kind}") };
        }
        Logged::Failed => matches!(kind, "query" | "execute" | "prepare"),
    };
    ensure!(fits, "{command:?} is a {kind}");
    ensure!(operation["text"] == command.text.as_str(), "the server ran {:?}", command.text);
    if command.logged != Logged::Execute {
        return Ok(());
    }
    let none = Vec::new();
    let recorded = operation["parameters"].as_array().unwrap_or(&none);
    ensure!(
        recorded.len() == command.parameters.len(),
        "the server has {} parameters",
        command.parameters.len()
    );
    for (place, (recorded, logged)) in recorded.iter().zip(&command.parameters).enumerate() {
        ensure!(
            same_value(recorded, logged.as_deref(), normalise),
            "${}: the server has {logged:?}",
            place + 1
        );
    }
    Ok(())
}

fn same_value(recorded: &Value, logged: Option<&str>, normalise: Normalise<'_>) -> bool {
    if let Some(base64) = recorded["base64"].as_str() {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return logged == Some(format!("\\x{hex}").as_str());
    }
    let value = recorded["value"].as_str();
    value == logged
        || match (value, recorded["type"].as_str()) {
            (Some(value), Some(kind)) => normalise(kind, value).iter().any(|printed| logged == Some(printed)),
            _ => false,
        }
}

/// Compares many: every backend has a session of its own that agrees with it, in whatever order they came, and every
/// session with a command that the server must have logged has a backend.
///
/// # Errors
/// The first backend without a session, with its difference from the one that is in its place; or a session left over.
pub fn compare_all(backends: &[Backend], shown: &[Value], normalise: Normalise<'_>) -> Result<()> {
    let mut left: Vec<&Value> = shown.iter().collect();
    for backend in backends {
        let found = left.iter().position(|session| compare(backend, session, normalise).is_ok());
        match found {
            Some(place) => drop(left.remove(place)),
            None => {
                let nearest = left.iter().max_by_key(|session| agreement(backend, session));
                let nearest = nearest.with_context(|| format!("no session for {backend:?}"))?;
                compare(backend, nearest, normalise).with_context(|| {
                    format!("backend {} and session {}", backend.id, nearest["session"]["id"])
                })?;
            }
        }
    }
    let silent = |session: &&Value| {
        let nothing = Backend {
            id: String::new(),
            application: String::new(),
            database: String::new(),
            commands: Vec::new(),
        };
        compare(&nothing, session, normalise).is_ok()
    };
    match left.iter().find(|session| !silent(session)) {
        None => Ok(()),
        Some(session) => bail!("the server logged nothing of session {}", session["session"]),
    }
}

/// How many of the first texts are the same.
fn agreement(backend: &Backend, shown: &Value) -> usize {
    let none = Vec::new();
    let texts = shown["operations"].as_array().unwrap_or(&none).iter().map(|operation| &operation["text"]);
    texts.zip(&backend.commands).take_while(|(text, command)| **text == command.text.as_str()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(tag: &str, severity: &str, state: &str, message: &str, detail: &str, query: &str) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut columns = vec![String::new(); 26];
        for (place, text) in [
            (2, "db"),
            (5, "s1"),
            (7, tag),
            (11, severity),
            (12, state),
            (13, message),
            (14, detail),
            (19, query),
            (22, "app"),
        ] {
            columns[place] = quoted(text);
        }
        columns.join(",") + "\n"
    }

    fn operation(
        sequence: u64,
        kind: &str,
        text: &str,
        parameters: Value,
        status: &str,
        code: Option<&str>,
    ) -> Value {
        let error = code.map(|code| json!({ "code": code, "message": "" }));
        json!({ "sequence": sequence, "kind": kind, "text": text, "parameters": parameters,
                "outcome": { "status": status, "error": error } })
    }

    fn log() -> String {
        [
            row("idle", "LOG", "00000", "statement: SELECT 'a\n\"b\"'", "", ""),
            row(
                "SELECT",
                "LOG",
                "00000",
                "execute s: SELECT $1, $2",
                "parameters: $1 = 'it''s, $2 = ', $2 = NULL",
                "",
            ),
            row("BIND", "ERROR", "22P02", "invalid input", "", "SELECT $1, $2"),
            row("idle", "LOG", "00000", "statement: SELECT 1/0", "", ""),
            row("SELECT", "ERROR", "22012", "division by zero", "", "SELECT 1/0"),
            row("idle", "ERROR", "42601", "syntax error", "", "SELEC"),
        ]
        .concat()
    }

    fn session() -> Value {
        let two = json!([{ "type": "text", "value": "it's, $2 = " }, { "type": "int4", "value": null }]);
        json!({ "session": { "id": "s" }, "operations": [
            operation(1, "query", "SELECT 'a\n\"b\"'", Value::Null, "ok", None),
            operation(2, "prepare", "SELECT $1, $2", Value::Null, "ok", None),
            operation(3, "execute", "SELECT $1, $2", two, "ok", None),
            operation(4, "execute", "SELECT $1, $2", json!([{ "type": "int4", "value": "x" }]), "error", Some("22P02")),
            operation(5, "execute", "never", Value::Null, "skipped", None),
            operation(6, "query", "SELECT 1/0", Value::Null, "error", Some("22012")),
            operation(7, "query", "SELEC", Value::Null, "error", Some("42601")),
        ] })
    }

    #[test]
    fn a_log_and_its_record_agree() {
        let backends = parse_log(&log()).unwrap();
        compare_all(&backends, &[session()], &|_, _| Vec::new()).unwrap();
    }

    #[test]
    fn every_difference_is_found() {
        let backends = parse_log(&log()).unwrap();
        for (pointer, value) in [
            ("/operations/0/text", json!("SELECT 'a'")),
            ("/operations/2/parameters/0/value", json!("its")),
            ("/operations/2/parameters/1/value", json!("")),
            ("/operations/2/outcome/status", json!("skipped")),
            ("/operations/5/outcome/error/code", json!("22013")),
            ("/operations/6/sequence", json!(8)),
            ("/operations/0/kind", json!("execute")),
        ] {
            let mut changed = session();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(compare_all(&backends, &[changed], &|_, _| Vec::new()).is_err(), "{pointer}");
        }
        assert!(compare_all(&backends, &[], &|_, _| Vec::new()).is_err(), "no session");
        assert!(compare_all(&[], &[session()], &|_, _| Vec::new()).is_err(), "no backend");
        let mut cut = backends;
        cut[0].commands.pop();
        assert!(compare_all(&cut, &[session()], &|_, _| Vec::new()).is_err(), "a session with more");
    }

    #[test]
    fn bytes_are_compared_as_the_server_prints_them() {
        assert!(same_value(&json!({ "type": "bytea", "base64": "AAH/" }), Some("\\x0001ff"), &|_, _| {
            Vec::new()
        }));
        assert!(!same_value(&json!({ "type": "bytea", "base64": "AAH/" }), Some("\\x0001fe"), &|_, _| {
            Vec::new()
        }));
        let normalise = |kind: &str, value: &str| vec![format!("{kind} {value}")];
        assert!(same_value(&json!({ "type": "date", "value": "today" }), Some("date today"), &normalise));
    }
}
