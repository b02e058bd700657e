//! One command → what it asks for, by its first byte.

use bytes::Bytes;
use verbatim_core::{Parameter, ParameterValue, Refusal, trace};

use super::lexer::{self, Kill};
use super::statement::{Arguments, Memory, Statement, query_attributes};
use super::{Draft, Next, Step, Turn, UNREADABLE_MAX, View};
use crate::cancel;
use crate::capability::{BULK, QUERY_ATTRIBUTES};
use crate::frame::{self, Malformed, Reader};
use crate::refusal::ErrorWords;
use crate::startup::packet::Login;

/// Prepares that are longer wait for those before them, so that what is not answered yet holds little memory.
const PIPELINED_TEXT_MAX: usize = 64 << 10;

/// Commands by their first byte.
mod com {
    pub(super) const QUIT: u8 = 0x01;
    pub(super) const INIT_DB: u8 = 0x02;
    pub(super) const QUERY: u8 = 0x03;
    pub(super) const FIELD_LIST: u8 = 0x04;
    pub(super) const CREATE_DB: u8 = 0x05;
    pub(super) const DROP_DB: u8 = 0x06;
    pub(super) const REFRESH: u8 = 0x07;
    pub(super) const SHUTDOWN: u8 = 0x08;
    pub(super) const STATISTICS: u8 = 0x09;
    pub(super) const PROCESS_INFO: u8 = 0x0a;
    pub(super) const PROCESS_KILL: u8 = 0x0c;
    pub(super) const DEBUG: u8 = 0x0d;
    pub(super) const PING: u8 = 0x0e;
    pub(super) const CHANGE_USER: u8 = 0x11;
    pub(super) const BINLOG_DUMP: u8 = 0x12;
    pub(super) const TABLE_DUMP: u8 = 0x13;
    pub(super) const REGISTER_SLAVE: u8 = 0x15;
    pub(super) const STMT_PREPARE: u8 = 0x16;
    pub(super) const STMT_EXECUTE: u8 = 0x17;
    pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub(super) const STMT_CLOSE: u8 = 0x19;
    pub(super) const STMT_RESET: u8 = 0x1a;
    pub(super) const SET_OPTION: u8 = 0x1b;
    pub(super) const STMT_FETCH: u8 = 0x1c;
    pub(super) const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub(super) const RESET_CONNECTION: u8 = 0x1f;
    pub(super) const CLONE: u8 = 0x20;
    pub(super) const SUBSCRIBE_GROUP_REPLICATION_STREAM: u8 = 0x21;
    pub(super) const STMT_BULK_EXECUTE: u8 = 0xfa;
    pub(super) const MULTI: u8 = 0xfe;
}

/// Reads the command whose packets are `bytes`. `answer` is the sequence of its answer.
pub(super) fn read(bytes: Bytes, answer: u8, memory: &Memory, view: View, capabilities: u64) -> Next {
    // What follows a statement that may ask for a file could be the file.
    if view.may_load {
        return Next::Stall;
    }
    let payload = frame::payload(&bytes);
    let Some((&command, _)) = payload.split_first() else {
        return unsupported("command", payload, "an empty command", true);
    };
    let body = payload.slice(1..);
    let simple = |kind, text: Option<Bytes>| item(Step::Simple, Draft::new(kind, text));
    match command {
        com::QUIT => Next::Alone(Turn::Quit),
        com::QUERY => query(bytes, body, capabilities),
        com::INIT_DB => simple("init_db", Some(body)),
        com::FIELD_LIST => item(Step::FieldList, Draft::new("field_list", Some(body))),
        com::REFRESH => {
            let mut draft = Draft::new("refresh", None);
            draft.parameters = Some(vec![number("tinyint unsigned", body.first().copied().unwrap_or(0))]);
            item(Step::Simple, draft)
        }
        com::STATISTICS => simple("statistics", None),
        com::PROCESS_INFO => item(Step::Rows, Draft::new("process_info", None)),
        com::PING => simple("ping", None),
        com::SET_OPTION => match Reader::new(body).u16("option") {
            Ok(option) => {
                let mut draft = Draft::new("set_option", None);
                draft.parameters = Some(vec![number("smallint unsigned", option)]);
                item(Step::Simple, draft)
            }
            Err(malformed) => unreadable("set_option", payload, malformed),
        },
        com::RESET_CONNECTION => item(Step::ResetConnection, Draft::new("reset_connection", None)),
        com::PROCESS_KILL => process_kill(bytes, body, &payload),
        com::CHANGE_USER if view.pending => Next::Stall,
        com::CHANGE_USER => Next::Alone(Turn::ChangeUser {
            login: Login::change_user(body, capabilities).map_err(Refusal::from),
            answer,
        }),
        com::STMT_PREPARE => prepare(body, memory, view),
        com::STMT_EXECUTE
        | com::STMT_SEND_LONG_DATA
        | com::STMT_CLOSE
        | com::STMT_RESET
        | com::STMT_FETCH
        | com::STMT_BULK_EXECUTE
            if view.preparing =>
        {
            Next::Stall
        }
        com::STMT_EXECUTE => execute(&payload, body, memory, capabilities),
        com::STMT_SEND_LONG_DATA => long_data(payload, body, memory),
        com::STMT_CLOSE => close(payload, body, memory),
        com::STMT_RESET => reset(payload, body, memory),
        com::STMT_FETCH => fetch(payload, body, memory),
        com::STMT_BULK_EXECUTE if capabilities & BULK != 0 => bulk(&payload, body, memory),
        refused => {
            let (kind, what) = refused_name(refused);
            unsupported(kind, payload, what, what.starts_with("an unknown"))
        }
    }
}

/// What is never passed on, in the record's word and in people's.
const fn refused_name(command: u8) -> (&'static str, &'static str) {
    match command {
        com::CREATE_DB => ("create_db", "COM_CREATE_DB"),
        com::DROP_DB => ("drop_db", "COM_DROP_DB"),
        com::SHUTDOWN => ("shutdown", "COM_SHUTDOWN"),
        com::DEBUG => ("debug", "COM_DEBUG"),
        com::BINLOG_DUMP => ("binlog_dump", "replication (COM_BINLOG_DUMP)"),
        com::BINLOG_DUMP_GTID => ("binlog_dump_gtid", "replication (COM_BINLOG_DUMP_GTID)"),
        com::TABLE_DUMP => ("table_dump", "replication (COM_TABLE_DUMP)"),
        com::REGISTER_SLAVE => ("register_slave", "replication (COM_REGISTER_SLAVE)"),
        com::CLONE => ("clone", "COM_CLONE"),
        com::SUBSCRIBE_GROUP_REPLICATION_STREAM => {
            ("subscribe_group_replication_stream", "group replication")
        }
        com::STMT_BULK_EXECUTE => ("bulk_execute", "COM_STMT_BULK_EXECUTE where it was not offered"),
        com::MULTI => ("multi", "COM_MULTI"),
        _ => ("command", "an unknown command"),
    }
}

fn item(step: Step, draft: Draft) -> Next {
    Next::Item { step, draft, cut: false }
}

fn last(step: Step, draft: Draft) -> Next {
    Next::Item { step, draft, cut: true }
}

fn number(kind: &'static str, value: impl ToString) -> Parameter {
    Parameter { type_name: kind.into(), value: ParameterValue::Text(value.to_string()) }
}

/// A command that the gateway does not pass on: its bytes are recorded, and the stream stays in step.
fn unsupported(kind: &'static str, payload: Bytes, what: &'static str, unknown: bool) -> Next {
    let mut draft = Draft::new(kind, Some(beginning(payload)));
    draft.refused = Some(Refusal::Unsupported { what: what.into() });
    item(Step::Refused(unknown.then(|| ErrorWords::new(1047, "08S01", "Unknown command"))), draft)
}

/// A command that cannot be read: its bytes are recorded, and the stream stays in step.
fn unreadable(kind: &'static str, payload: Bytes, malformed: Malformed) -> Next {
    let mut draft = Draft::new(kind, Some(beginning(payload)));
    draft.refused = Some(malformed.into());
    item(Step::Refused(Some(ErrorWords::new(1835, "HY000", "Malformed communication packet."))), draft)
}

fn beginning(payload: Bytes) -> Bytes {
    payload.slice(..payload.len().min(UNREADABLE_MAX))
}

fn query(bytes: Bytes, body: Bytes, capabilities: u64) -> Next {
    let (arguments, text) = match capabilities & QUERY_ATTRIBUTES {
        0 => (Arguments::default(), body),
        _ => match query_attributes(body.clone()) {
            Ok(read) => read,
            Err(malformed) => return unreadable("query", body, malformed),
        },
    };
    let mut draft = Draft::new("query", None);
    draft.trace_id = arguments.traceparent().or_else(|| trace::in_comment(&text));
    draft.parts.extend(arguments.part());
    let kill = lexer::kill(&text).filter(|kill| kill.thread_id >= cancel::FIRST);
    let files = lexer::local_files(&text);
    draft.text = Some(text);
    match kill {
        Some(kill) => Next::Alone(Turn::Kill { kill, wire: false, draft, bytes }),
        None => Next::Item { cut: !files.is_empty(), step: Step::Query(files), draft },
    }
}

fn process_kill(bytes: Bytes, body: Bytes, payload: &Bytes) -> Next {
    match Reader::new(body).u32("thread id") {
        Ok(thread_id) => {
            let mut draft = Draft::new("process_kill", None);
            draft.parameters = Some(vec![number("int unsigned", thread_id)]);
            let kill = Kill { thread_id, query: false };
            Next::Alone(Turn::Kill { kill, wire: true, draft, bytes })
        }
        Err(malformed) => unreadable("process_kill", payload.clone(), malformed),
    }
}

fn prepare(text: Bytes, memory: &Memory, view: View) -> Next {
    if view.preparing && text.len() > PIPELINED_TEXT_MAX {
        return Next::Stall;
    }
    let mut draft = Draft::new("prepare", Some(text.clone()));
    draft.trace_id = trace::in_comment(&text);
    if memory.is_full(text.len()) {
        draft.refused = Some(Refusal::Busy { reason: "prepared statements of a session".into() });
        return item(Step::Refused(None), draft);
    }
    item(Step::Prepare(text), draft)
}

/// A command on a statement that the target has not prepared in this session.
fn unknown_statement(kind: &'static str, payload: Bytes, id: u32, function: &'static str) -> Next {
    let mut draft = Draft::new(kind, Some(beginning(payload)));
    let reason = format!("an unknown prepared statement ({id})");
    draft.refused = Some(Refusal::Protocol { reason: reason.into() });
    let words = format!("Unknown prepared statement handler ({id}) given to {function}");
    item(Step::Refused(Some(ErrorWords::new(1243, "HY000", words))), draft)
}

fn statement_of<'m>(
    body: &mut Reader,
    memory: &'m Memory,
) -> Result<(u32, Option<&'m Statement>), Malformed> {
    let id = body.u32("statement")?;
    Ok((id, memory.get(id)))
}

/// What an execution says, as its operation.
fn drafted(kind: &'static str, statement: &Statement, arguments: &mut Arguments) -> Draft {
    let mut draft = Draft::new(kind, Some(statement.text.clone()));
    draft.trace_id = arguments.traceparent().or_else(|| trace::in_comment(&statement.text));
    draft.parts.extend(arguments.part());
    draft.parameters = Some(std::mem::take(&mut arguments.parameters));
    draft
}

fn execute(payload: &Bytes, body: Bytes, memory: &Memory, capabilities: u64) -> Next {
    let mut reader = Reader::new(body);
    let (id, statement) = match statement_of(&mut reader, memory) {
        Ok((id, Some(statement))) => (id, statement),
        Ok((id, None)) => return unknown_statement("execute", payload.clone(), id, "mysqld_stmt_execute"),
        Err(malformed) => return unreadable("execute", payload.clone(), malformed),
    };
    let mut arguments = match statement.execute(reader.rest().clone(), capabilities) {
        Ok(arguments) => arguments,
        Err(malformed) => return unreadable("execute", payload.clone(), malformed),
    };
    let mut draft = drafted("execute", statement, &mut arguments);
    if let Some(refusal) = statement.poisoned() {
        draft.refused = Some(refusal.clone());
        return item(Step::Refused(None), draft);
    }
    let files = lexer::local_files(&statement.text);
    let types = arguments.types.filter(|types| statement.differs(Some(types)));
    let cut = types.is_some() || statement.has_long_data() || !files.is_empty();
    Next::Item { step: Step::Execute { statement: id, types, cursor: arguments.cursor, files }, draft, cut }
}

fn bulk(payload: &Bytes, body: Bytes, memory: &Memory) -> Next {
    let mut reader = Reader::new(body);
    let (id, statement) = match statement_of(&mut reader, memory) {
        Ok((id, Some(statement))) => (id, statement),
        Ok((id, None)) => {
            return unknown_statement("bulk_execute", payload.clone(), id, "mysql_stmt_bulk_execute");
        }
        Err(malformed) => return unreadable("bulk_execute", payload.clone(), malformed),
    };
    match statement.bulk(reader.rest().clone()) {
        Ok(mut arguments) => {
            let draft = drafted("bulk_execute", statement, &mut arguments);
            let types = arguments.types.filter(|types| statement.differs(Some(types)));
            Next::Item { cut: types.is_some(), step: Step::Bulk { statement: id, types }, draft }
        }
        Err(malformed) => unreadable("bulk_execute", payload.clone(), malformed),
    }
}

fn long_data(payload: Bytes, body: Bytes, memory: &Memory) -> Next {
    let mut reader = Reader::new(body);
    let refused = |refusal| {
        let mut draft = Draft::new("long_data", Some(beginning(payload.clone())));
        draft.refused = Some(refusal);
        last(Step::RefusedSilently, draft)
    };
    let (id, statement) = match statement_of(&mut reader, memory) {
        Ok(found) => found,
        Err(malformed) => return refused(malformed.into()),
    };
    let Ok(parameter) = reader.u16("parameter") else {
        return refused(Malformed { field: "parameter" }.into());
    };
    let Some(statement) = statement else {
        let reason = format!("long data for an unknown prepared statement ({id})");
        return refused(Refusal::Protocol { reason: reason.into() });
    };
    let data = reader.rest().clone();
    let mut draft = Draft::new("long_data", Some(statement.text.clone()));
    let value = ParameterValue::Binary(data.clone());
    draft.parameters =
        Some(vec![number("smallint unsigned", parameter), Parameter { type_name: "blob".into(), value }]);
    last(Step::LongData { statement: id, parameter, data }, draft)
}

fn close(payload: Bytes, body: Bytes, memory: &Memory) -> Next {
    match statement_of(&mut Reader::new(body), memory) {
        Ok((id, Some(statement))) => last(Step::Close(id), Draft::new("close", Some(statement.text.clone()))),
        // The server ignores it, as it does after a reset: drivers close what is gone by then.
        Ok((id, None)) => last(Step::Close(id), Draft::new("close", None)),
        Err(malformed) => {
            let mut draft = Draft::new("close", Some(beginning(payload)));
            draft.refused = Some(malformed.into());
            item(Step::RefusedSilently, draft)
        }
    }
}

fn reset(payload: Bytes, body: Bytes, memory: &Memory) -> Next {
    match statement_of(&mut Reader::new(body), memory) {
        Ok((id, Some(statement))) => last(Step::Reset(id), Draft::new("reset", Some(statement.text.clone()))),
        Ok((id, None)) => unknown_statement("reset", payload, id, "mysqld_stmt_reset"),
        Err(malformed) => unreadable("reset", payload, malformed),
    }
}

fn fetch(payload: Bytes, body: Bytes, memory: &Memory) -> Next {
    let mut reader = Reader::new(body);
    match (statement_of(&mut reader, memory), reader.u32("rows")) {
        (Ok((_, Some(statement))), Ok(rows)) => {
            let mut draft = Draft::new("fetch", Some(statement.text.clone()));
            draft.parameters = Some(vec![number("int unsigned", rows)]);
            item(Step::Fetch, draft)
        }
        (Ok((id, None)), _) => unknown_statement("fetch", payload, id, "mysqld_stmt_fetch"),
        (Err(malformed), _) | (_, Err(malformed)) => unreadable("fetch", payload, malformed),
    }
}
