//! `sessions list|show|tail` and `search`: asked of the running gateway, or read from its files.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cli::FilterArgs;
use crate::control;
use crate::records::{Question, Record, WireFilters, answer, tail};
use crate::render;

/// How many sessions people are shown unless they ask for more.
const LIST_FOR_PEOPLE: u64 = 50;
/// How often a stopped gateway's files are looked at again by `tail`.
const TAIL_LOOK: Duration = Duration::from_millis(500);

fn wire(filters: FilterArgs, json: bool) -> WireFilters {
    let limit = filters.limit.and_then(|limit| u64::try_from(limit).ok());
    WireFilters {
        connection: filters.connection,
        identity: filters.identity,
        group: filters.group,
        trace: filters.trace,
        since: filters.since.map(|time| time.to_string()),
        until: filters.until.map(|time| time.to_string()),
        open: filters.open,
        refused: filters.refused,
        masked: filters.masked,
        approved: filters.approved,
        limit: limit.or((!json).then_some(LIST_FOR_PEOPLE)),
    }
}

/// The document that answers, from the gateway or from its files.
fn document(record: &Record, question: &Question) -> Result<Box<dyn Read>> {
    if let Some(answer) = control::ask(&record.data_dir, question)? {
        return Ok(Box::new(answer));
    }
    let mut document = Vec::new();
    answer(&record.index()?, question, &mut document)?;
    Ok(Box::new(std::io::Cursor::new(document)))
}

/// `sessions list`
pub(crate) fn list(record: &Record, filters: FilterArgs, json: bool) -> Result<ExitCode> {
    let document = document(record, &Question::List { filters: wire(filters, json) })?;
    if json {
        super::print_document(document)?
    } else {
        render::sessions(document)?
    }
    Ok(ExitCode::SUCCESS)
}

/// `sessions show`
pub(crate) fn show(record: &Record, id: String, json: bool) -> Result<ExitCode> {
    let document = document(record, &Question::Show { id })?;
    if json {
        super::print_document(document)?
    } else {
        render::session(document)?
    }
    Ok(ExitCode::SUCCESS)
}

/// `search`
pub(crate) fn search(record: &Record, text: String, filters: FilterArgs, json: bool) -> Result<ExitCode> {
    let document = document(record, &Question::Search { text, filters: wire(filters, json) })?;
    if json {
        super::print_document(document)?
    } else {
        render::matches(document)?
    }
    Ok(ExitCode::SUCCESS)
}

/// `sessions tail`
pub(crate) fn follow(record: &Record, json: bool) -> Result<ExitCode> {
    if let Some(answer) = control::ask(&record.data_dir, &Question::Tail)? {
        for line in BufReader::new(answer).lines() {
            print_line(&line?, json)?;
        }
        eprintln!("the gateway stopped");
        return Ok(ExitCode::SUCCESS);
    }
    let mut tail = tail(&record.index()?)?;
    loop {
        while let Some(line) = tail.next()? {
            print_line(&serde_json::to_string(&line)?, json)?;
        }
        std::thread::sleep(TAIL_LOOK);
    }
}

fn print_line(line: &str, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{line}")?;
    } else {
        render::tail_line(line, &mut out)?;
    }
    Ok(out.flush()?)
}
