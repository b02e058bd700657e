//! What the stack says of an operation: a permit, or a refusal.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::{BoxFuture, CloseReason, Outcome, Plan};

/// Why something was not let through. One closed enum, so that every interceptor words each case in its protocol.
///
/// The client is told its class; the record holds the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A: no identity was proved. The client learns nothing else.
    #[error("not authenticated ({code}): {reason}")]
    NotAuthenticated {
        /// A stable word: `alg`, `signature`, `expired`, `malformed`, …
        code: &'static str,
        /// What was wrong, for the record.
        reason: String,
    },
    /// The client asked where it can get a token (SASL OAUTHBEARER discovery); an expected refusal.
    #[error("the client asked where to get a token")]
    Discovery,
    /// Z: the identity is proved and has no access.
    #[error("not allowed ({code}): {reason}")]
    NotAllowed {
        /// A stable word: `no_group`, `kind`, `scope`, `guest`, …
        code: &'static str,
        /// What was missing, for the record.
        reason: String,
    },
    /// T: it cannot be decided now.
    #[error("the identity service is unavailable ({code}): {reason}")]
    Undecided {
        /// A stable word: `keys`, `groups`, …
        code: &'static str,
        /// What failed, for the record.
        reason: String,
    },
    /// P: the client broke the protocol, or sent what cannot be read.
    #[error("protocol violation: {reason}")]
    Protocol {
        /// What was read and what was expected.
        reason: Cow<'static, str>,
    },
    /// A frame longer than `[limits] message`.
    #[error("a message of {length} bytes, over the limit of {limit}")]
    TooLarge {
        /// What its header says, in bytes.
        length: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// What the gateway does not pass on: replication, unknown messages.
    #[error("not supported: {what}")]
    Unsupported {
        /// Named as the protocol names it.
        what: Cow<'static, str>,
    },
    /// The token ended while the session was open.
    #[error("the token expired")]
    Expired,
    /// The identity lost its access while the session was open.
    #[error("access was revoked: {reason}")]
    Revoked {
        /// What changed.
        reason: String,
    },
    /// It cannot be recorded, so it does not happen.
    #[error("the record takes no entries: {reason}")]
    NotRecorded {
        /// Why.
        reason: String,
    },
    /// It would show, copy or betray what a mask protects.
    #[error("masking: {reason}")]
    Masking {
        /// The rule that protects it; none where it could not be told what is at stake.
        rule: Option<Arc<str>>,
        /// Why, in words that quote no value.
        reason: Cow<'static, str>,
    },
    /// A limit of the gateway is reached (sessions).
    #[error("the gateway is at its limit: {reason}")]
    Busy {
        /// Which limit.
        reason: Cow<'static, str>,
    },
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    Draining,
}

/// Whose fault a refusal is: picks log level and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client's.
    Client,
    /// The target's.
    Target,
    /// The gateway's or its services'.
    Gateway,
}

impl Refusal {
    /// The stable word in the record.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAuthenticated { code, .. }
            | Self::NotAllowed { code, .. }
            | Self::Undecided { code, .. } => code,
            Self::Discovery => "discovery",
            Self::Protocol { .. } => "protocol",
            Self::TooLarge { .. } => "too_large",
            Self::Unsupported { .. } => "unsupported",
            Self::Expired => "expired",
            Self::Revoked { .. } => "access_revoked",
            Self::NotRecorded { .. } => "not_recorded",
            Self::Masking { .. } => "masking",
            Self::Busy { .. } => "busy",
            Self::Draining => "draining",
        }
    }

    /// The name of the rule that refused; none where no rule did.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Masking { rule, .. } => rule.as_deref(),
            _ => None,
        }
    }

    /// The reason as the record holds it.
    pub fn reason(&self) -> String {
        match self {
            Self::NotAuthenticated { reason, .. }
            | Self::NotAllowed { reason, .. }
            | Self::Undecided { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// Why a session closes that ends with this refusal.
    pub const fn close_reason(&self) -> CloseReason {
        match self {
            Self::Expired => CloseReason::Expired,
            Self::Revoked { .. } => CloseReason::AccessRevoked,
            Self::Draining => CloseReason::Drained,
            _ => CloseReason::Protocol,
        }
    }

    /// Whose fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Undecided { .. } | Self::NotRecorded { .. } | Self::Busy { .. } | Self::Draining => {
                Fault::Gateway
            }
            _ => Fault::Client,
        }
    }
}

/// Where a permit's fate is written. The stack implements it; an interceptor only ever sees permits.
pub trait Journal: Send + Sync {
    /// Whether `entry` is durable already: `None` while it isn't.
    fn is_durable(&self, entry: u64) -> Option<Result<(), Refusal>>;

    /// Waits until `entry` is durable.
    fn durable(&self, entry: u64) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Appends a piece of what streams through under the operation that `entry` opened, and returns its own entry;
    /// `None` where the record mode keeps no content.
    ///
    /// # Errors
    /// The record takes no entries.
    fn chunk(
        &self,
        entry: u64,
        sequence: u64,
        stream: ChunkStream,
        bytes: &[u8],
    ) -> Result<Option<u64>, Refusal>;

    /// Writes the outcome of the operation that `entry` opened.
    fn complete(&self, entry: u64, sequence: u64, requested: Instant, outcome: &Outcome);

    /// Writes that the operation was aborted: it may have been forwarded, and no answer came.
    fn abort(&self, entry: u64, sequence: u64);
}

/// Which way a chunk streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkStream {
    /// From the client: COPY data, a body. Kept in [`RecordMode::Full`](crate::RecordMode) and above.
    Content,
    /// To the client: the rows as sent. Kept in [`RecordMode::Results`](crate::RecordMode) alone.
    Result,
}

impl ChunkStream {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Result => "result",
        }
    }
}

/// What a permit and a recorded permit share; its drop is what keeps an operation from staying open.
struct Open {
    journal: Option<Arc<dyn Journal>>,
    entry: u64,
    sequence: u64,
    requested: Instant,
    plan: Option<Arc<dyn Plan>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.abort(self.entry, self.sequence);
        }
    }
}

/// Leave to forward an operation, once its entry is durable. The stack hands it out; dropped, it records "aborted".
pub struct Permit(Open);

impl Permit {
    /// A permit for the operation whose entry in the record is `entry`.
    pub fn new(journal: Arc<dyn Journal>, entry: u64, sequence: u64, requested: Instant) -> Self {
        Self(Open { journal: Some(journal), entry, sequence, requested, plan: None })
    }

    /// The same, with what is to be done to the result.
    pub fn with_plan(mut self, plan: Arc<dyn Plan>) -> Self {
        self.0.plan = Some(plan);
        self
    }

    /// Waits until the operation's entry is durable. For a batch, the first wait is the only one that takes time.
    ///
    /// # Cancel safety
    /// Dropping the future drops the permit, which records "aborted".
    ///
    /// # Errors
    /// The entry could not be made durable; the operation must not be forwarded.
    pub async fn recorded(self) -> Result<Recorded, Refusal> {
        if let Some(journal) = &self.0.journal {
            match journal.is_durable(self.0.entry) {
                Some(known) => known?,
                None => journal.durable(self.0.entry).await?,
            }
        }
        Ok(Recorded(self.0))
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit(operation {})", self.0.sequence)
    }
}

/// A permit whose operation is durably in the record: the only thing that may be forwarded.
///
/// ```compile_fail
/// # fn forward(_: verbatim_core::Recorded) {}
/// # fn example(permit: verbatim_core::Permit) {
/// forward(permit); // not recorded yet
/// # }
/// ```
///
/// ```
/// # fn forward(_: verbatim_core::Recorded) {}
/// # async fn example(permit: verbatim_core::Permit) -> Result<(), verbatim_core::Refusal> {
/// forward(permit.recorded().await?);
/// # Ok(())
/// # }
/// ```
pub struct Recorded(Open);

impl Recorded {
    /// The operation's place in its session.
    pub const fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// What is to be done to its result; without one, no byte of it has to be looked at.
    pub fn plan(&self) -> Option<&Arc<dyn Plan>> {
        self.0.plan.as_ref()
    }

    /// Records a piece of streamed content from the client and waits until it is durable: only then may it be
    /// passed on. `bytes` should be at most 1 MiB.
    ///
    /// # Errors
    /// It could not be recorded, and must not be passed on.
    pub async fn content(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(journal) = &self.0.journal else { return Ok(()) };
        match journal.chunk(self.0.entry, self.0.sequence, ChunkStream::Content, bytes)? {
            Some(entry) => match journal.is_durable(entry) {
                Some(known) => known,
                None => journal.durable(entry).await,
            },
            None => Ok(()),
        }
    }

    /// Records a piece of what the client receives. It does not wait.
    ///
    /// # Errors
    /// The record takes no entries; the result must not be passed on.
    pub fn result(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let Some(journal) = &self.0.journal else { return Ok(()) };
        journal.chunk(self.0.entry, self.0.sequence, ChunkStream::Result, bytes).map(|_| ())
    }

    /// Writes the outcome.
    pub fn complete(mut self, outcome: &Outcome) {
        if let Some(journal) = self.0.journal.take() {
            journal.complete(self.0.entry, self.0.sequence, self.0.requested, outcome);
        }
    }
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorded(operation {})", self.0.sequence)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Status;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Journal for Notes {
        fn is_durable(&self, _: u64) -> Option<Result<(), Refusal>> {
            Some(Ok(()))
        }
        fn durable(&self, _: u64) -> BoxFuture<'_, Result<(), Refusal>> {
            Box::pin(async { Ok(()) })
        }
        fn chunk(&self, _: u64, _: u64, _: ChunkStream, _: &[u8]) -> Result<Option<u64>, Refusal> {
            Ok(None)
        }
        fn complete(&self, entry: u64, _: u64, _: Instant, outcome: &Outcome) {
            self.0.lock().unwrap().push(format!("{entry} {}", outcome.status.as_str()));
        }
        fn abort(&self, entry: u64, _: u64) {
            self.0.lock().unwrap().push(format!("{entry} aborted"));
        }
    }

    #[test]
    fn a_permit_that_is_dropped_records_aborted_and_a_completed_one_its_outcome() {
        let notes = Arc::new(Notes::default());
        drop(Permit::new(notes.clone(), 1, 1, Instant::now()));
        let recorded = futures_block_on(Permit::new(notes.clone(), 2, 2, Instant::now()).recorded()).unwrap();
        drop(recorded);
        let recorded = futures_block_on(Permit::new(notes.clone(), 3, 3, Instant::now()).recorded()).unwrap();
        recorded.complete(&Outcome::new(Status::Skipped));
        assert_eq!(*notes.0.lock().unwrap(), ["1 aborted", "2 aborted", "3 skipped"]);
    }

    /// Enough of an executor for futures that are ready at once.
    fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => unreachable!("everything in this test is ready at once"),
        }
    }
}
