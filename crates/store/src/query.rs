//! Filters, as conditions of SQL.

use rusqlite::types::Value;
use verbatim_core::Timestamp;

use crate::ingest::stored;
use crate::view::TailLine;

/// What `sessions list`, `sessions tail` and `search` are narrowed by; the default lets everything pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// The connection's name.
    pub connection: Option<String>,
    /// An object id or a name: of the identity, or of the person whom an agent acts for. Without regard to case.
    pub identity: Option<String>,
    /// The id or the name of the group that let the session in. Without regard to case.
    pub group: Option<String>,
    /// A trace id: the session's, or that of one of its operations.
    pub trace: Option<String>,
    /// Sessions that were open at this time or later; operations that were requested then or later.
    pub since: Option<Timestamp>,
    /// Sessions that were opened, operations that were requested, at this time or earlier.
    pub until: Option<Timestamp>,
    /// Sessions that are open.
    pub open: bool,
    /// Sessions whose login or one of whose operations was refused; operations that were refused.
    pub refused: bool,
    /// Where something was masked.
    pub masked: bool,
    /// Where somebody was asked to approve.
    pub approved: bool,
    /// How many at most.
    pub limit: Option<u64>,
}

/// Conditions and the values of their parameters.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    sql: Vec<&'static str>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, sql: &'static str, values: impl IntoIterator<Item = Value>) {
        self.sql.push(sql);
        self.values.extend(values);
    }

    /// `WHERE …`, or nothing where there is no condition.
    pub(crate) fn sql(&self) -> String {
        if self.sql.is_empty() { String::new() } else { format!("WHERE {}", self.sql.join(" AND ")) }
    }

    /// The values, in the order of their marks.
    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn time(value: Timestamp) -> Value {
    Value::Integer(stored(value))
}

impl Filters {
    /// Conditions on sessions `s`.
    pub(crate) fn of_sessions(&self) -> Conditions {
        let mut conditions = self.of_both();
        if let Some(trace) = &self.trace {
            conditions.add(
                "(s.trace = ? OR s.id IN (SELECT session FROM operations WHERE trace = ?))",
                [text(trace), text(trace)],
            );
        }
        if let Some(since) = self.since {
            conditions.add("(s.closed IS NULL OR s.closed >= ?)", [time(since)]);
        }
        if let Some(until) = self.until {
            conditions.add("s.opened <= ?", [time(until)]);
        }
        for (wanted, sql) in [
            (self.refused, "s.refused = 1"),
            (self.masked, "s.masked = 1"),
            (self.approved, "s.approved = 1"),
        ] {
            if wanted {
                conditions.add(sql, []);
            }
        }
        conditions
    }

    /// Conditions on operations `o` of sessions `s`.
    pub(crate) fn of_operations(&self) -> Conditions {
        let mut conditions = self.of_both();
        if let Some(trace) = &self.trace {
            conditions.add("(s.trace = ? OR o.trace = ?)", [text(trace), text(trace)]);
        }
        if let Some(since) = self.since {
            conditions.add("o.requested >= ?", [time(since)]);
        }
        if let Some(until) = self.until {
            conditions.add("o.requested <= ?", [time(until)]);
        }
        for (wanted, sql) in [
            (self.refused, "o.refused = 1"),
            (self.masked, "o.masked = 1"),
            (self.approved, "o.approved = 1"),
        ] {
            if wanted {
                conditions.add(sql, []);
            }
        }
        conditions
    }

    fn of_both(&self) -> Conditions {
        let mut conditions = Conditions::default();
        if let Some(connection) = &self.connection {
            conditions.add("s.connection = ?", [text(connection)]);
        }
        if let Some(identity) = &self.identity {
            conditions.add(
                "? COLLATE NOCASE IN (s.object_id, s.name, s.person_id, s.person_name)",
                [text(identity)],
            );
        }
        if let Some(group) = &self.group {
            conditions.add("? COLLATE NOCASE IN (s.group_id, s.group_name)", [text(group)]);
        }
        if self.open {
            conditions.add("s.closed IS NULL", []);
        }
        conditions
    }

    /// `LIMIT …`, or nothing.
    pub(crate) fn limit_sql(&self) -> String {
        self.limit.map_or_else(String::new, |limit| format!("LIMIT {}", limit.min(i64::MAX as u64)))
    }
}

impl Filters {
    /// Whether a line of the tail passes.
    pub(crate) fn pass(&self, line: &TailLine) -> bool {
        let session = &line.session;
        let identity = session.identity.as_ref();
        let person = identity.and_then(|identity| identity.on_behalf_of.as_ref());
        let group = session.authorized_by.as_ref().filter(|by| by.kind == "group");
        let operation = line.operation.as_ref();
        let refused = match operation {
            None => session.refusal.is_some(),
            Some(operation) => operation.outcome.as_ref().is_some_and(|outcome| outcome.refusal.is_some()),
        };
        is(self.connection.as_ref(), [session.connection.as_deref()])
            && is(
                self.identity.as_ref(),
                [
                    identity.map(|identity| identity.object_id.as_str()),
                    identity.and_then(|identity| identity.name.as_deref()),
                    person.map(|person| person.object_id.as_str()),
                    person.and_then(|person| person.name.as_deref()),
                ],
            )
            && is(
                self.group.as_ref(),
                [group.and_then(|group| group.id.as_deref()), group.and_then(|group| group.name.as_deref())],
            )
            && is(
                self.trace.as_ref(),
                [session.trace_id.as_deref(), operation.and_then(|operation| operation.trace_id.as_deref())],
            )
            && (!self.open || session.closed_at.is_none())
            && (!self.refused || refused)
            && (!self.masked || operation.is_some_and(|operation| !operation.masked.is_empty()))
            && (!self.approved || operation.is_some_and(|operation| operation.approval.is_some()))
    }
}

fn is<const N: usize>(wanted: Option<&String>, those: [Option<&str>; N]) -> bool {
    wanted.is_none_or(|wanted| those.into_iter().flatten().any(|one| one.eq_ignore_ascii_case(wanted)))
}
