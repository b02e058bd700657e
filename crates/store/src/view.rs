//! The documents that `sessions`, `search`, `tail` and the admin API print, key by key (schemas: `docs/contract/`).
//!
//! Every key is always there: null for what is unknown or does not apply, `[]` for none. Times are text with six
//! digits and `Z`. The ledger's own names and counters (`sseq`, `idx`, …) are never shown.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One session: who, by which group, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its identifier.
    pub id: String,
    /// The connection; null where the wanted name is none, or no identity was proved.
    pub connection: Option<String>,
    /// The connection's type.
    pub protocol: String,
    /// `host:port[/database]`, for HTTP the URL.
    pub target: Option<String>,
    /// Who; null unless the token proved somebody.
    pub identity: Option<IdentityView>,
    /// What let it in.
    pub authorized_by: Option<AuthorizedByView>,
    /// Where that was learnt.
    pub authorization_source: Option<String>,
    /// The client.
    pub client: ClientView,
    /// A W3C trace id.
    pub trace_id: Option<String>,
    /// When it opened.
    pub opened_at: String,
    /// When it closed; null while it is open.
    pub closed_at: Option<String>,
    /// Why it closed.
    pub close_reason: Option<String>,
    /// Why the login was refused.
    pub refusal: Option<RefusalView>,
    /// The gateway node that recorded it.
    pub node: String,
    /// Closed, and every operation has an outcome that isn't `aborted`.
    pub complete: bool,
    /// The connection that the client asked for, as it said (not part of the contract).
    pub wanted: Option<String>,
}

/// A verified identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// `entra`, or another issuer's configured name.
    pub provider: String,
    /// The tenant, or the other issuer's URL.
    pub tenant: String,
    /// The subject.
    pub object_id: String,
    /// `user`, `workload` or `agent`.
    pub kind: String,
    /// For display alone.
    pub name: Option<String>,
    /// The client application.
    pub app_id: Option<String>,
    /// The person whom an agent acts for.
    pub on_behalf_of: Option<PersonView>,
    /// The token's id.
    pub token_id: Option<String>,
    /// When the token ends.
    pub expires_at: String,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonView {
    /// The object id.
    pub object_id: String,
    /// For display alone.
    pub name: Option<String>,
}

/// What let an identity in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizedByView {
    /// `group`, `role`, `user`, `workload`, `agent` or `grant`.
    pub kind: String,
    /// The name in the configuration.
    pub name: Option<String>,
    /// The id at the provider.
    pub id: Option<String>,
}

/// What the wire tells of the client; trusted for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// `ip:port`.
    pub address: Option<String>,
    /// The user name that it gave.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: Option<String>,
}

/// Why a login or an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    /// A stable word.
    pub code: String,
    /// The rule that refused.
    pub rule: Option<String>,
    /// The reason, in words.
    pub reason: String,
}

/// One operation of a session and what came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperationView {
    /// Its place in the session, from 1, without gaps.
    pub sequence: u64,
    /// The wire's own word.
    pub kind: String,
    /// What a parser made of it.
    pub statement: Option<String>,
    /// The command as sent; null where it has none, or where its bytes are no UTF-8.
    pub text: Option<String>,
    /// The command's bytes where they are no UTF-8; the key is absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// `[{"type", "value"|"base64"}]`, as recorded; null where it takes none or they are not kept.
    pub parameters: Option<Box<RawValue>>,
    /// An HTTP request: `{"method", "target", "headers", "body"}`; absent for what is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<RawValue>>,
    /// An MCP tool call: `{"name", "arguments"}`; absent for what is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Box<RawValue>>,
    /// An HTTP response: `{"status", "headers"}`; absent for what is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<RawValue>>,
    /// When it arrived.
    pub requested_at: String,
    /// When its outcome was recorded; null while it runs.
    pub completed_at: Option<String>,
    /// A W3C trace id.
    pub trace_id: Option<String>,
    /// What came of it; null while it runs.
    pub outcome: Option<OutcomeView>,
    /// What was masked in its result.
    pub masked: Vec<MaskedView>,
    /// Who decided on it.
    pub approval: Option<ApprovalView>,
    /// Length and digest of what the client streamed under it (not part of the contract).
    pub content: Option<ContentView>,
    /// Stands for parameters that are not kept (not part of the contract).
    pub parameters_withheld: Option<WithheldView>,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// `ok`, `error`, `refused`, `skipped` or `aborted`.
    pub status: String,
    /// Rows returned or affected.
    pub rows: Option<u64>,
    /// Bytes of result that were sent to the client.
    pub bytes: Option<u64>,
    /// From its arrival to its outcome, in microseconds.
    pub duration_us: Option<u64>,
    /// The target's error.
    pub error: Option<ErrorView>,
    /// Why it never reached the target.
    pub refusal: Option<RefusalView>,
    /// Notices and warnings, in order (not part of the contract).
    pub messages: Vec<String>,
}

/// The target's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// The protocol's own code.
    pub code: String,
    /// As the client got it; null where messages are not kept.
    pub message: Option<String>,
}

/// One masked column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedView {
    /// Its path.
    pub column: String,
    /// The mask's name.
    pub rule: String,
    /// The transformation.
    pub with: String,
    /// How many cells.
    pub cells: u64,
}

/// A decision on an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Its identifier.
    pub id: String,
    /// The rule that asked for it.
    pub rule: String,
    /// When it was asked for.
    pub asked_at: String,
    /// When it was decided.
    pub decided_at: Option<String>,
    /// `approved`, `denied`, `expired` or `withdrawn`.
    pub decision: Option<String>,
    /// Who decided.
    pub by: Option<PersonView>,
    /// What they gave as the reason.
    pub reason: Option<String>,
}

/// The whole of streamed content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentView {
    /// Bytes in all.
    pub length: u64,
    /// SHA-256 over all of it, in hexadecimal.
    pub sha256: String,
    /// All of it, where it stands nowhere else in the document and is no longer than what is shown from memory; absent
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The same, where the bytes are no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// Length and keyed digest of values that are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithheldView {
    /// Bytes of their JSON form.
    pub length: u64,
    /// HMAC-SHA-256 under a key of the node, in hexadecimal.
    pub hmac: String,
}

/// What `sessions show --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionDocument {
    /// The session.
    pub session: SessionView,
    /// Its operations, in order.
    pub operations: Vec<OperationView>,
}

/// What `sessions list --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionsDocument {
    /// Newest first.
    pub sessions: Vec<SessionView>,
    /// Where a trace was asked for: what it did in those sessions, oldest first (not part of the contract).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
}

/// What `search --json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SearchDocument {
    /// Newest first.
    pub matches: Vec<Match>,
}

/// An operation, and the session that it belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Match {
    /// The session.
    pub session: SessionView,
    /// The operation.
    pub operation: OperationView,
}

/// A line of `sessions tail --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TailLine {
    /// The session, as it was then: `closed_at` is null but in the line of its close.
    pub session: SessionView,
    /// The operation that ended; null when the session opens or closes.
    pub operation: Option<OperationView>,
}
