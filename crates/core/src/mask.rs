//! What an operation shows, stores and changes, as facts without a judgement; and what was masked in its result.
//!
//! ```text
//! interceptor ── puts a Meaning on the operation ──▸ stack asks it, only where a mask of the connection needs to know
//!             ◂── Permit with a Plan ── decides over the Lineage ◂──┘
//! interceptor ── applies the plan to the result ──▸ Outcome.masking: what was masked, cell counts, never a value
//! ```

use std::any::Any;
use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use crate::{BoxFuture, Refusal};

/// What an operation means, asked for at most once, when it is decided and not earlier: the same text can mean something else
/// after the definitions that it names have changed.
pub trait Meaning: Send + Sync + fmt::Debug {
    /// What the operation shows, stores and changes.
    ///
    /// # Errors
    /// Nobody can say now (the target's catalog can't be read): the operation is refused.
    fn lineage(&self) -> BoxFuture<'_, Result<Arc<Lineage>, Refusal>>;
}

/// What is done to a result, as the stack decided it; it travels in the permit to the interceptor that applies it. The type
/// behind it is `verbatim_mask::MaskPlan`.
pub trait Plan: Any + Send + Sync {}

/// The full name of a column, a key or a field, as mask rules are matched against it: `schema.table.column` (Postgres),
/// `database.table.column` (MySQL), the key or `key->field` (Redis).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnName(Arc<str>);

impl ColumnName {
    /// A column of a table.
    pub fn new(schema: &str, table: &str, column: &str) -> Self {
        Self(format!("{schema}.{table}.{column}").into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ColumnName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl Borrow<str> for ColumnName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of columns, sorted, each once.
///
/// A column that comes from another (a view's, a partition's, a generated one's) stands beside those that it comes from, so
/// that a rule that names any of them finds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources(Vec<ColumnName>);

impl Sources {
    /// Adds one.
    pub fn insert(&mut self, column: ColumnName) {
        if let Err(place) = self.0.binary_search(&column) {
            self.0.insert(place, column);
        }
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for column in &other.0 {
            self.insert(column.clone());
        }
    }

    /// The columns, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, ColumnName> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<ColumnName> for Sources {
    fn from_iter<I: IntoIterator<Item = ColumnName>>(columns: I) -> Self {
        let mut columns: Vec<_> = columns.into_iter().collect();
        columns.sort_unstable();
        columns.dedup();
        Self(columns)
    }
}

/// What an operation shows, stores and changes. It knows no rule: columns are named whether anything protects them or not, so
/// that one lineage serves every session that sends the same text under the same settings and definitions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// What is shown, result by result, in the order in which the results come.
    pub results: Vec<ResultLineage>,
    /// What decides which rows there are, how many, and in which order.
    pub controls: Vec<Control>,
    /// What is stored, and where.
    pub writes: Vec<Write>,
    /// Columns whose table or definition the operation changes or builds on (`ALTER`, `RENAME`, an index, a view over them).
    pub reshapes: Sources,
    /// Every column of every relation that takes part, also by triggers and foreign keys: what error texts may quote.
    pub touches: Sources,
    /// Code that runs and that nothing here looked into to its end.
    pub calls: Vec<Call>,
    /// Foreign tables that are read, `schema.table`: what stands behind them is not known.
    pub foreign: Vec<String>,
    /// Why it cannot be let through while anything is protected: `DO runs code that is not analysed`. It quotes no value.
    pub forbidden: Vec<Cow<'static, str>>,
    /// Why parts of what it shows could not be traced; they are in [`results`](Self::results) as columns that are not known.
    pub unknown: Vec<Cow<'static, str>>,
    /// No parser reads it, so nothing else here can be relied on.
    pub unparsed: Option<Cow<'static, str>>,
    /// The columns that the target has, so that a rule that names none of them is noticed; none where nobody can list them.
    pub columns: Option<Arc<Columns>>,
}

/// The columns of a target, as its definitions were read last.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Columns {
    /// Grows with every reading.
    pub version: u64,
    /// All of them, the server's own left out.
    pub names: Vec<ColumnName>,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultLineage {
    /// Its columns, in order; for a protocol without columns its positions, in the order that its interceptor defines.
    pub columns: Vec<OutputColumn>,
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    /// The name under which it is delivered; empty where only the server knows it.
    pub name: String,
    /// What its values are made of.
    pub sources: Sources,
    /// Its values are those of a stored column, unchanged: no expression, cast or aggregate is between.
    pub plain: bool,
    /// Everything that its values can come from is in [`sources`](Self::sources).
    pub known: bool,
}

/// A column that decides something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Which.
    pub columns: Sources,
    /// Where: `WHERE`, `JOIN`, `ORDER BY`, `CASE`, …
    pub place: &'static str,
    /// It is `column = constant` (or `IN` so many constants), a term of the outermost `AND`: how many values it is compared with.
    pub equals: Option<u32>,
}

/// Values that are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where; the name that a new table's column will have. None: somewhere that is no column (a variable, a file, a payload).
    pub to: Option<ColumnName>,
    /// What they are made of.
    pub from: Sources,
    /// Those that stand in the statement or its parameters themselves.
    pub literals: Vec<Literal>,
    /// Everything that they can come from is named.
    pub known: bool,
}

/// A value as the operation brings it.
#[derive(Clone, PartialEq, Eq)]
pub enum Literal {
    /// NULL, or a default.
    Null,
    /// A constant of the statement.
    Text(String),
    /// A bound parameter, counted from 1.
    Parameter(u32),
}

/// Prints length, never content.
impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Text(text) => write!(f, "text ({} bytes)", text.len()),
            Self::Parameter(number) => write!(f, "${number}"),
        }
    }
}

/// A function, procedure or trigger that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// With its schema: `public.total`.
    pub name: String,
    /// With its argument types, as `masking.routines` names it: `public.total(integer, text)`; the name alone where the
    /// protocol has no overloads.
    pub signature: String,
    /// What is known of it.
    pub kind: CallKind,
    /// What goes into its arguments.
    pub arguments: Sources,
    /// What its body may read, as far as it could be looked at.
    pub reads: Sources,
}

/// What is known of a [`Call`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// The server's own, but not one whose result depends on its arguments alone and that leaves no trace elsewhere.
    Impure,
    /// It runs SQL that it is given as text, reads files, or shows what others do.
    Reaches,
    /// Somebody's; its body was read and holds no SQL made at run time: it sees [`Call::reads`].
    Read,
    /// Somebody's; nobody can say what it sees.
    Opaque,
}

/// How a protected value is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Replaced by a fixed text; by null where the type is no text.
    Redact,
    /// Replaced by null.
    Null,
    /// All but its end or its rough shape is replaced.
    Partial,
    /// Replaced by a keyed digest: equal values stay equal.
    Hash,
    /// Replaced by another value of the same type and shape, the same one each time.
    Tokenize,
}

impl Mode {
    /// The word in configuration and record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redact => "redact",
            Self::Null => "null",
            Self::Partial => "partial",
            Self::Hash => "hash",
            Self::Tokenize => "tokenize",
        }
    }
}

/// Cells of one column that one rule changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The protected column; for a detector the name of the delivered one.
    pub column: String,
    /// The rule's name.
    pub rule: Arc<str>,
    /// How.
    pub with: Mode,
    /// How many cells.
    pub cells: u64,
}

/// What masking did to an operation's result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masking {
    /// The cells, column by column.
    pub cells: Vec<Masked>,
    /// Error and notice texts were replaced, since they may quote protected values.
    pub scrubbed: bool,
    /// Protected columns decided something, which the connection allows: who reads many answers can infer values.
    pub inference: bool,
}
