//! What people see: tables, colour on a terminal alone, and nothing in a record that could act on the terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read, Write};

use anyhow::Result;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use verbatim_ledger::verify::{Outcome, Report};
use verbatim_store::{
    Match, OperationView, SearchDocument, SessionDocument, SessionView, SessionsDocument, TailLine,
};

/// How much of a long text a list shows, in characters. `sessions show` shows all of it.
const LIST_TEXT_MAX: usize = 96;

/// Makes a text harmless: control characters and marks that change the reading direction are shown as escapes.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let allowed = matches!(character, '\n' | '\t') || !(character.is_control() || turns);
        if allowed {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

fn one_line(text: &str, longest: usize) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = words.chars().take(longest).collect();
    if words.chars().nth(longest).is_some() {
        line.push('…');
    }
    harmless(&line)
}

/// Colours, where standard output is a terminal and nobody asked for none (`NO_COLOR`).
struct Paint(bool);

impl Paint {
    fn new() -> Self {
        Self(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn status(&self, status: &str) -> String {
        match status {
            "ok" => self.with("32", status),
            "skipped" => self.with("33", status),
            _ => self.with("31", status),
        }
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    if std::env::var_os("NO_COLOR").is_some() {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    table
}

/// The time to the second, as people read it.
fn time(text: &str) -> String {
    text.get(..19).unwrap_or(text).replace('T', " ")
}

fn who(session: &SessionView) -> String {
    let Some(identity) = &session.identity else { return "nobody proved".to_owned() };
    let name = identity.name.as_deref().unwrap_or(&identity.object_id);
    let mut who = format!("{} {}", identity.kind, harmless(name));
    if let Some(person) = &identity.on_behalf_of {
        let _ = write!(who, " for {}", harmless(person.name.as_deref().unwrap_or(&person.object_id)));
    }
    who
}

fn by(session: &SessionView) -> String {
    match &session.authorized_by {
        Some(by) => format!("{}:{}", by.kind, by.name.as_deref().or(by.id.as_deref()).unwrap_or("?")),
        None => {
            session.refusal.as_ref().map_or("-".to_owned(), |refusal| format!("refused: {}", refusal.code))
        }
    }
}

/// `sessions list`
pub(crate) fn sessions(document: impl Read) -> Result<()> {
    let document: SessionsDocument = serde_json::from_reader(document)?;
    let mut table = table(&["session", "opened (UTC)", "closed", "connection", "who", "let in by", "end"]);
    for session in &document.sessions {
        let end = match (&session.close_reason, session.complete) {
            (None, _) => Cell::new("open").fg(Color::Cyan),
            (Some(reason), true) => Cell::new(reason),
            (Some(reason), false) => Cell::new(format!("{reason}, incomplete")).fg(Color::Yellow),
        };
        table.add_row(vec![
            Cell::new(&session.id),
            Cell::new(time(&session.opened_at)),
            Cell::new(session.closed_at.as_deref().map_or("-".to_owned(), time)),
            Cell::new(session.connection.as_deref().unwrap_or("-")),
            Cell::new(who(session)),
            Cell::new(by(session)),
            end,
        ]);
    }
    println!("{table}");
    if !document.matches.is_empty() {
        let mut out = std::io::stdout().lock();
        writeln!(out)?;
        for found in &document.matches {
            timeline_line(found, &Paint::new(), &mut out)?;
        }
    }
    Ok(())
}

/// What one operation of a run did, and where.
fn timeline_line(found: &Match, paint: &Paint, out: &mut impl Write) -> Result<()> {
    let operation = &found.operation;
    let status = operation.outcome.as_ref().map_or("running", |outcome| &outcome.status);
    let at = operation.requested_at.get(..26).unwrap_or(&operation.requested_at).replace('T', " ");
    let connection = found.session.connection.as_deref().unwrap_or("-");
    let text = one_line(operation.text.as_deref().unwrap_or_default(), LIST_TEXT_MAX);
    let place =
        paint.dim(&format!("{}#{}", found.session.id.get(..13).unwrap_or_default(), operation.sequence));
    writeln!(
        out,
        "{at} {place} {} {} {} {text}",
        paint.bold(connection),
        operation.kind,
        paint.status(status)
    )?;
    Ok(())
}

/// `sessions show`
pub(crate) fn session(document: impl Read) -> Result<()> {
    let document: SessionDocument = serde_json::from_reader(document)?;
    let paint = Paint::new();
    let mut out = std::io::stdout().lock();
    head(&document.session, &paint, &mut out)?;
    for operation in &document.operations {
        show_operation(operation, &paint, &mut out)?;
    }
    let count = document.operations.len();
    writeln!(out, "\n{count} operation{}", if count == 1 { "" } else { "s" })?;
    Ok(out.flush()?)
}

fn head(session: &SessionView, paint: &Paint, out: &mut impl Write) -> Result<()> {
    let mut line = |name: &str, value: &str| writeln!(out, "{} {value}", paint.dim(&format!("{name:<14}")));
    line("session", &paint.bold(&session.id))?;
    line("who", &who(session))?;
    if let Some(identity) = &session.identity {
        line(
            "identity",
            &format!("{} tenant {} object {}", identity.provider, identity.tenant, identity.object_id),
        )?;
        if let Some(app) = &identity.app_id {
            line("application id", app)?;
        }
        if let Some(token) = &identity.token_id {
            line("token", &format!("{}, ends {}", harmless(token), time(&identity.expires_at)))?;
        }
    }
    let source =
        session.authorization_source.as_deref().map_or(String::new(), |source| format!(" (from {source})"));
    line("let in by", &format!("{}{source}", by(session)))?;
    if let Some(refusal) = &session.refusal {
        line("refused", &format!("{}: {}", refusal.code, harmless(&refusal.reason)))?;
    }
    let connection = session.connection.as_deref().unwrap_or("-");
    line(
        "connection",
        &format!("{connection} ({}), target {}", session.protocol, session.target.as_deref().unwrap_or("-")),
    )?;
    let client = &session.client;
    let named = |name: &Option<String>| name.as_deref().map_or("-".to_owned(), harmless);
    line(
        "client",
        &format!(
            "{}, user {}, application {}",
            client.address.as_deref().unwrap_or("-"),
            named(&client.user),
            named(&client.application)
        ),
    )?;
    line("opened", &session.opened_at)?;
    let closed = match (&session.closed_at, &session.close_reason) {
        (Some(at), Some(reason)) => format!("{at} ({reason})"),
        _ => "still open".to_owned(),
    };
    line("closed", &closed)?;
    line("node", &session.node)?;
    let complete = if session.complete { "yes: every operation has an outcome" } else { "no" };
    line("complete", complete)?;
    Ok(())
}

fn show_operation(operation: &OperationView, paint: &Paint, out: &mut impl Write) -> Result<()> {
    let status = operation.outcome.as_ref().map_or("running", |outcome| &outcome.status);
    let at = operation.requested_at.get(11..26).unwrap_or(&operation.requested_at);
    writeln!(
        out,
        "\n{} {} {} {}",
        paint.bold(&format!("{:>4}", operation.sequence)),
        at,
        operation.kind,
        paint.status(status)
    )?;
    match (&operation.text, &operation.base64) {
        (Some(text), _) => indented(&harmless(text), out)?,
        (None, Some(base64)) => indented(&format!("(not UTF-8, base64) {base64}"), out)?,
        (None, None) => {}
    }
    if let Some(parameters) = &operation.parameters {
        for (place, parameter) in parameters_of(parameters.get()).iter().enumerate() {
            writeln!(out, "       {} {}", paint.dim(&format!("${}", place + 1)), parameter)?;
        }
    }
    show_request(operation, paint, out)?;
    if let Some(content) = &operation.content {
        writeln!(
            out,
            "       {}",
            paint.dim(&format!("{} bytes sent, SHA-256 {}", content.length, content.sha256))
        )?;
    }
    let Some(outcome) = &operation.outcome else { return Ok(()) };
    let mut facts = Vec::new();
    if let Some(rows) = outcome.rows {
        facts.push(format!("{rows} row{}", if rows == 1 { "" } else { "s" }));
    }
    if let Some(bytes) = outcome.bytes {
        facts.push(format!("{bytes} bytes"));
    }
    if let Some(duration) = outcome.duration_us {
        facts.push(format!("{}.{:03} ms", duration / 1000, duration % 1000));
    }
    if !facts.is_empty() {
        writeln!(out, "       {}", paint.dim(&format!("→ {}", facts.join(", "))))?;
    }
    if let Some(error) = &outcome.error {
        let message = harmless(error.message.as_deref().unwrap_or_default());
        writeln!(out, "       {}", paint.with("31", &format!("→ {} {message}", error.code)))?;
    }
    if let Some(refusal) = &outcome.refusal {
        let reason = harmless(&refusal.reason);
        writeln!(out, "       {}", paint.with("31", &format!("→ refused, {}: {reason}", refusal.code)))?;
    }
    for message in &outcome.messages {
        writeln!(out, "       {}", paint.dim(&format!("· {}", harmless(message))))?;
    }
    Ok(())
}

/// What HTTP and MCP say beyond the text: a tool's name and arguments, a request's fields and body.
fn show_request(operation: &OperationView, paint: &Paint, out: &mut impl Write) -> Result<()> {
    if let Some(tool) = &operation.tool {
        writeln!(out, "       {} {}", paint.dim("tool"), harmless(tool.get()))?;
    }
    let Some(request) = &operation.request else { return Ok(()) };
    let request: serde_json::Value = serde_json::from_str(request.get())?;
    let word = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(serde_json::Value::as_str).map(harmless).unwrap_or_default()
    };
    for field in request.get("headers").and_then(serde_json::Value::as_array).into_iter().flatten() {
        writeln!(out, "       {} {}", paint.dim(&format!("{}:", word(field, "name"))), word(field, "value"))?;
    }
    if let Some(body) = request.get("body").filter(|body| body.is_object()) {
        match body.get("value") {
            Some(_) => indented(&word(body, "value"), out)?,
            None => indented(&format!("(not UTF-8, base64) {}", word(body, "base64")), out)?,
        }
    }
    Ok(())
}

fn indented(text: &str, out: &mut impl Write) -> Result<()> {
    for line in text.split('\n') {
        writeln!(out, "       {line}")?;
    }
    Ok(())
}

/// Each parameter as `value (type)`.
fn parameters_of(json: &str) -> Vec<String> {
    let list: Vec<serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |parameter: &serde_json::Value, key: &str| {
        parameter.get(key).and_then(serde_json::Value::as_str).map(harmless)
    };
    list.iter()
        .map(|parameter| {
            let kind = text(parameter, "type").unwrap_or_default();
            match (text(parameter, "value"), text(parameter, "base64")) {
                (Some(value), _) => format!("{value} ({kind})"),
                (None, Some(base64)) => format!("{base64} ({kind}, base64)"),
                (None, None) => format!("NULL ({kind})"),
            }
        })
        .collect()
}

/// `search`
pub(crate) fn matches(document: impl Read) -> Result<()> {
    let document: SearchDocument = serde_json::from_reader(document)?;
    let mut table = table(&["session", "#", "when (UTC)", "who", "connection", "command", "outcome"]);
    for found in &document.matches {
        let operation = &found.operation;
        let status = operation.outcome.as_ref().map_or("running", |outcome| &outcome.status);
        table.add_row(vec![
            found.session.id.clone(),
            operation.sequence.to_string(),
            time(&operation.requested_at),
            who(&found.session),
            found.session.connection.clone().unwrap_or_default(),
            one_line(operation.text.as_deref().unwrap_or_default(), LIST_TEXT_MAX),
            status.to_owned(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// A line of `sessions tail`.
pub(crate) fn tail_line(line: &str, out: &mut impl Write) -> Result<()> {
    let line: TailLine = serde_json::from_str(line)?;
    let paint = Paint::new();
    let session = &line.session;
    let short = session.id.get(..13).unwrap_or(&session.id);
    let connection = session.connection.as_deref().unwrap_or("-");
    let (at, what) = match (&line.operation, &session.close_reason) {
        (Some(operation), _) => {
            let status = operation.outcome.as_ref().map_or("running", |outcome| &outcome.status);
            let text = one_line(operation.text.as_deref().unwrap_or_default(), LIST_TEXT_MAX);
            let what = format!("#{} {} {} {text}", operation.sequence, operation.kind, paint.status(status));
            (operation.completed_at.as_ref().unwrap_or(&operation.requested_at), what)
        }
        (None, Some(reason)) => (
            session.closed_at.as_ref().unwrap_or(&session.opened_at),
            paint.bold(&format!("closed ({reason})")),
        ),
        (None, None) => (&session.opened_at, paint.bold(&format!("opened, let in by {}", by(session)))),
    };
    writeln!(out, "{} {} {connection} {} {what}", time(at), paint.dim(short), who(session))?;
    Ok(())
}

/// `verify`
pub(crate) fn verification(report: &Report) -> Result<()> {
    let paint = Paint::new();
    let mut out = std::io::stdout().lock();
    for ledger in &report.ledgers {
        writeln!(out, "{}", paint.bold(&ledger.origin))?;
        let (size, sessions, operations) = (ledger.size, ledger.sessions, ledger.operations);
        writeln!(
            out,
            "  {size} entries, {sessions} sessions, {operations} operations, root {}",
            ledger.root
        )?;
    }
    for finding in &report.findings {
        let mut place = finding.file.clone().unwrap_or_default();
        if let Some(offset) = finding.offset {
            let _ = write!(place, " at byte {offset}");
        }
        if let Some(session) = &finding.session {
            let _ = write!(place, " session {session}");
        }
        if let Some(sequence) = finding.sequence {
            let _ = write!(place, " operation {sequence}");
        }
        let code = paint.with("31", finding.code);
        writeln!(out, "{code} {}: {}", place.trim(), harmless(&finding.message))?;
    }
    let verdict = match report.result {
        Outcome::Intact => paint.with("32", "intact"),
        Outcome::Findings => paint.with("31", &format!("{} findings", report.findings.len())),
        Outcome::Unknown => paint.with("33", "could not tell"),
    };
    writeln!(out, "{verdict}")?;
    writeln!(out, "{}", report.last_line)?;
    Ok(out.flush()?)
}

/// `sinks status`
pub(crate) fn sinks(document: &[u8]) -> Result<()> {
    let document: serde_json::Value = serde_json::from_slice(document)?;
    let mut table = table(&["sink", "type", "delivered", "ledger", "lag", "dead letters", "last error"]);
    let text = |sink: &serde_json::Value, key: &str| match sink.get(key) {
        Some(serde_json::Value::String(text)) => one_line(text, LIST_TEXT_MAX),
        Some(serde_json::Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    for sink in document.get("sinks").and_then(serde_json::Value::as_array).into_iter().flatten() {
        let columns = ["name", "type", "delivered", "ledger", "lag_seconds", "dead_letters", "last_error"];
        table.add_row(columns.map(|key| text(sink, key)));
    }
    println!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_cannot_act_on_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\u{0}\u{202e}b\n\tc"), "a\\u{1b}[2J\\u{0}\\u{202e}b\n\tc");
        assert_eq!(one_line("select\n  1", 96), "select 1");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }
}
