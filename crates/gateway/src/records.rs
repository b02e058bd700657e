//! What can be asked of the record, answered the same way by a running gateway and from a stopped one's files.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use verbatim_core::Timestamp;
use verbatim_store::{Filters, Index, Labels, Start, StoreError, Tail};

/// A question, as it crosses the control socket: one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Question {
    /// `sessions list`
    List { filters: WireFilters },
    /// `sessions show`
    Show { id: String },
    /// `search`
    Search { text: String, filters: WireFilters },
    /// `sessions tail`
    Tail,
    /// `prove`: the proof is made from the files, but a running gateway records that it was asked for.
    Prove { id: String, sequence: Option<u64> },
    /// `sinks status`
    SinksStatus,
    /// `sinks replay`
    SinksReplay { name: String, from: Option<String> },
}

impl Question {
    /// The command's name, for the entry that records the reading.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::List { .. } => "sessions list",
            Self::Show { .. } => "sessions show",
            Self::Search { .. } => "search",
            Self::Tail => "sessions tail",
            Self::Prove { .. } => "prove",
            Self::SinksStatus => "sinks status",
            Self::SinksReplay { .. } => "sinks replay",
        }
    }

    /// What it was about: a session's id, a search's text, a sink's name.
    pub(crate) fn subject(&self) -> Option<&str> {
        match self {
            Self::Show { id } | Self::Prove { id, .. } => Some(id),
            Self::Search { text, .. } => Some(text),
            Self::SinksReplay { name, .. } => Some(name),
            Self::List { .. } | Self::Tail | Self::SinksStatus => None,
        }
    }
}

/// [`Filters`] on the wire; times in RFC 3339.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WireFilters {
    pub(crate) connection: Option<String>,
    pub(crate) identity: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) trace: Option<String>,
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    pub(crate) open: bool,
    pub(crate) refused: bool,
    pub(crate) masked: bool,
    pub(crate) approved: bool,
    pub(crate) limit: Option<u64>,
}

impl WireFilters {
    fn filters(&self) -> Result<Filters> {
        let time = |text: &Option<String>| text.as_deref().map(Timestamp::parse).transpose();
        Ok(Filters {
            connection: self.connection.clone(),
            identity: self.identity.clone(),
            group: self.group.clone(),
            trace: self.trace.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
            open: self.open,
            refused: self.refused,
            masked: self.masked,
            approved: self.approved,
            limit: self.limit,
        })
    }
}

/// Where a record is, and how its texts are labelled.
pub(crate) struct Record {
    pub(crate) data_dir: PathBuf,
    pub(crate) labels: Labels,
}

impl Record {
    /// The index of a stopped gateway's files, brought up to date.
    pub(crate) fn index(&self) -> Result<Arc<Index>> {
        let ledger = self.ledger();
        let index = Index::open(&self.data_dir, &ledger, Arc::clone(&self.labels));
        let index = index.with_context(|| ledger.display().to_string())?;
        index.catch_up()?;
        Ok(Arc::new(index))
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.data_dir.join("ledger")
    }
}

/// Writes the document that answers a question about the record. Nothing is written if it cannot be answered.
pub(crate) fn answer(index: &Arc<Index>, question: &Question, out: &mut dyn Write) -> Result<()> {
    match question {
        Question::List { filters } => index.write_list(&filters.filters()?, out)?,
        Question::Show { id } => index.write_session(id, out)?,
        Question::Search { text, filters } => index.write_matches(text, &filters.filters()?, out)?,
        Question::Prove { id, .. } => out.write_all(index.session(id)?.id.as_bytes())?,
        Question::Tail | Question::SinksStatus | Question::SinksReplay { .. } => {
            anyhow::bail!("{} is no question about the index", question.name())
        }
    }
    Ok(())
}

/// A tail that begins now.
pub(crate) fn tail(index: &Arc<Index>) -> Result<Tail, StoreError> {
    Tail::new(Arc::clone(index), Start::Now, Filters::default())
}
