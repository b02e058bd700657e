//! What names mean at the target: prepared statements and portals.
//!
//! A name changes its meaning only when the target says so (ParseComplete, BindComplete, CloseComplete), so that a Parse
//! which it refuses (a name that is taken) leaves the name with what it had. Until the answer is there, the messages of
//! the same segment may rely on a change, for the target skips them if it fails; those of a later one must wait.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use verbatim_core::{Parameter, Refusal};

use crate::frame::{Malformed, Reader};
use crate::values;

/// How many names a session may have of each sort.
pub(crate) const NAMES_MAX: usize = 65_536;
/// How many bytes of texts and bound values a session may make the gateway remember, of each sort.
pub(crate) const MEMORY_MAX: usize = 256 << 20;
/// Texts up to this size are copied, so that they do not keep a whole read buffer alive.
const COPIED_MAX: usize = 16 << 10;

/// A prepared statement.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    pub(crate) text: Bytes,
    /// The parameters' types as Parse gave them; 0 and what is missing are the target's to find.
    declared: Vec<u32>,
    /// The types as the target told them (ParameterDescription).
    described: OnceLock<Vec<u32>>,
    /// Whether an Execute of the batch that it came in, or a later one, was seen.
    pub(crate) executed: AtomicBool,
}

impl Statement {
    pub(crate) fn new(text: &Bytes, declared: Vec<u32>) -> Self {
        Self { text: small(text), declared, ..Self::default() }
    }

    /// The target said what the parameters' types are.
    pub(crate) fn describe(&self, types: Vec<u32>) {
        // Asked twice, it says the same.
        let _ = self.described.set(types);
    }

    fn parameter_type(&self, place: usize) -> u32 {
        let told = self.described.get().and_then(|types| types.get(place)).copied();
        told.or_else(|| self.declared.get(place).copied()).unwrap_or(0)
    }

    fn size(&self) -> usize {
        self.text.len() + self.declared.len() * size_of::<u32>()
    }
}

fn small(bytes: &Bytes) -> Bytes {
    if bytes.len() <= COPIED_MAX { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}

/// What a Bind gave for the parameters.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    formats: Vec<i16>,
    values: Vec<Option<Bytes>>,
    size: usize,
}

impl Arguments {
    /// Reads formats, values and the formats of results, up to the end of a Bind.
    pub(crate) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let size = reader.rest().len();
        let mut formats = Vec::new();
        for _ in 0..reader.count(2, "parameter formats")? {
            formats.push(reader.i16("parameter formats")?);
        }
        let mut values = Vec::new();
        for _ in 0..reader.count(4, "parameters")? {
            values.push(reader.value("parameters")?);
        }
        for _ in 0..reader.count(2, "result formats")? {
            reader.i16("result formats")?;
        }
        reader.end("Bind")?;
        Ok(Self { formats, values, size })
    }

    /// Reads the formats and arguments of a FunctionCall and the format of its result, up to its end.
    pub(crate) fn read_call(reader: &mut Reader) -> Result<Self, Malformed> {
        let size = reader.rest().len();
        let mut formats = Vec::new();
        for _ in 0..reader.count(2, "argument formats")? {
            formats.push(reader.i16("argument formats")?);
        }
        let mut values = Vec::new();
        for _ in 0..reader.count(4, "arguments")? {
            values.push(reader.value("arguments")?);
        }
        reader.i16("result format")?;
        reader.end("FunctionCall")?;
        Ok(Self { formats, values, size })
    }

    /// No format given says text, one is for all, else each has its own.
    fn format(&self, place: usize) -> i16 {
        match *self.formats.as_slice() {
            [] => 0,
            [all] => all,
            ref each => each.get(place).copied().unwrap_or(0),
        }
    }
}

/// A portal: a statement and what was bound to it.
#[derive(Debug)]
pub(crate) struct Portal {
    statement: Option<Arc<Statement>>,
    arguments: Arguments,
    /// SQL made it, as a cursor.
    declared: bool,
}

impl Portal {
    /// What a Bind makes.
    pub(crate) const fn bound(statement: Option<Arc<Statement>>, arguments: Arguments) -> Self {
        Self { statement, arguments, declared: false }
    }

    /// What `DECLARE` makes.
    pub(crate) fn declared(statement: Statement) -> Self {
        Self { statement: Some(Arc::new(statement)), arguments: Arguments::default(), declared: true }
    }

    /// Whether SQL made it.
    pub(crate) const fn is_declared(&self) -> bool {
        self.declared
    }

    /// Its statement; none where it is one that the wire never showed.
    pub(crate) const fn statement(&self) -> Option<&Arc<Statement>> {
        self.statement.as_ref()
    }

    /// The bound values, decoded by the types that are known by now.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let values = self.arguments.values.iter().enumerate();
        values
            .map(|(place, value)| {
                let oid = self.statement.as_ref().map_or(0, |statement| statement.parameter_type(place));
                values::decode(oid, self.arguments.format(place), value.as_deref())
            })
            .collect()
    }
}

/// What a name can stand for.
pub(crate) trait Named {
    /// How many bytes it keeps.
    fn kept(&self) -> usize;
}

impl Named for Statement {
    fn kept(&self) -> usize {
        self.size()
    }
}

impl Named for Portal {
    fn kept(&self) -> usize {
        self.arguments.size
    }
}

/// What a name means.
#[derive(Debug)]
pub(crate) enum Meaning<T> {
    /// This.
    Known(Arc<T>),
    /// Nothing that the wire showed.
    Unknown,
    /// It depends on an answer of the target that has not come.
    Unsettled,
}

/// A change that was forwarded, to be settled by the target's answer.
#[derive(Debug)]
pub(crate) struct Change {
    name: Bytes,
    id: u64,
}

/// How the target answered a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It was made.
    Applied,
    /// It was not, and the name means what it meant.
    Kept,
    /// It failed, and took what the name meant with it: the unnamed ones are dropped before they are made anew.
    Lost,
}

#[derive(Debug)]
struct Proposal<T> {
    id: u64,
    segment: u64,
    value: Option<Arc<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    settled: Option<Arc<T>>,
    proposed: VecDeque<Proposal<T>>,
}

/// The names of one sort.
#[derive(Debug)]
pub(crate) struct Names<T> {
    slots: HashMap<Bytes, Slot<T>>,
    /// Bytes that settled and proposed values keep.
    kept: usize,
    next: u64,
    proposals: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), kept: 0, next: 0, proposals: 0 }
    }
}

impl<T: Named> Names<T> {
    /// What `name` means to a message of `segment`.
    pub(crate) fn look_up(&self, name: &[u8], segment: u64) -> Meaning<T> {
        let Some(slot) = self.slots.get(name) else { return Meaning::Unknown };
        match slot.proposed.back() {
            Some(proposal) if proposal.segment != segment => Meaning::Unsettled,
            Some(proposal) => proposal.value.clone().map_or(Meaning::Unknown, Meaning::Known),
            None => slot.settled.clone().map_or(Meaning::Unknown, Meaning::Known),
        }
    }

    /// What `name` means to the target, by its answers so far.
    pub(crate) fn settled(&self, name: &[u8]) -> Option<&Arc<T>> {
        self.slots.get(name)?.settled.as_ref()
    }

    /// Whether any change waits for the target's answer.
    pub(crate) const fn is_settled(&self) -> bool {
        self.proposals == 0
    }

    /// Proposes what `name` means from now on.
    ///
    /// # Errors
    /// The session has too many names, or keeps too much.
    pub(crate) fn propose(
        &mut self,
        name: &Bytes,
        segment: u64,
        value: Option<T>,
    ) -> Result<Change, Refusal> {
        let size = value.as_ref().map_or(0, Named::kept);
        let full = |reason: &'static str| Refusal::Busy { reason: reason.into() };
        if self.slots.len() >= NAMES_MAX && !self.slots.contains_key(name) {
            return Err(full("too many prepared statements or portals in this session"));
        }
        if self.kept.saturating_add(size) > MEMORY_MAX {
            return Err(full("too much memory for the prepared statements or portals of this session"));
        }
        self.kept += size;
        let name = small(name);
        self.next += 1;
        self.proposals += 1;
        let slot =
            self.slots.entry(name.clone()).or_insert(Slot { settled: None, proposed: VecDeque::new() });
        slot.proposed.push_back(Proposal { id: self.next, segment, value: value.map(Arc::new) });
        Ok(Change { name, id: self.next })
    }

    /// The target answered.
    pub(crate) fn settle(&mut self, change: &Change, how: Settled) {
        let Some(slot) = self.slots.get_mut(&change.name) else { return };
        let Some(place) = slot.proposed.iter().position(|proposal| proposal.id == change.id) else { return };
        let Some(proposal) = slot.proposed.remove(place) else { return };
        self.proposals -= 1;
        let lost = match how {
            Settled::Applied => std::mem::replace(&mut slot.settled, proposal.value),
            Settled::Kept => proposal.value,
            Settled::Lost => {
                self.kept = self.kept.saturating_sub(proposal.value.map_or(0, |value| value.kept()));
                slot.settled.take()
            }
        };
        self.kept = self.kept.saturating_sub(lost.map_or(0, |value| value.kept()));
        if slot.settled.is_none() && slot.proposed.is_empty() {
            self.slots.remove(&change.name);
        }
    }

    /// Sets what `name` means, as SQL did (`PREPARE`, `DECLARE`; `DEALLOCATE` and `None`).
    pub(crate) fn set(&mut self, name: &[u8], value: Option<T>) {
        let name = Bytes::copy_from_slice(name);
        if let Ok(change) = self.propose(&name, 0, value) {
            self.settle(&change, Settled::Applied);
        }
    }

    /// Forgets every name that no pending change concerns and that `keep` does not hold.
    pub(crate) fn forget(&mut self, keep: impl Fn(&[u8], &T) -> bool) {
        let mut freed = 0;
        self.slots.retain(|name, slot| {
            if let Some(value) = slot.settled.take_if(|value| !keep(name, value)) {
                freed += value.kept();
            }
            slot.settled.is_some() || !slot.proposed.is_empty()
        });
        self.kept = self.kept.saturating_sub(freed);
    }

    /// Whether there is nothing to forget.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value that a proposal holds, for the message that made it.
    pub(crate) fn proposed(&self, change: &Change) -> Option<Arc<T>> {
        let slot = self.slots.get(&change.name)?;
        slot.proposed.iter().find(|proposal| proposal.id == change.id)?.value.clone()
    }
}

impl Change {
    /// Whether it concerns the unnamed statement or portal.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.name.is_empty()
    }
}

impl Statement {
    /// Notes that it was executed.
    pub(crate) fn note_executed(&self) {
        self.executed.store(true, Relaxed);
    }

    /// Whether it was executed.
    pub(crate) fn was_executed(&self) -> bool {
        self.executed.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &'static str) -> Option<Statement> {
        Some(Statement::new(&Bytes::from_static(text.as_bytes()), Vec::new()))
    }

    fn text(names: &Names<Statement>, name: &str, segment: u64) -> String {
        match names.look_up(name.as_bytes(), segment) {
            Meaning::Known(statement) => String::from_utf8(statement.text.to_vec()).unwrap(),
            Meaning::Unknown => "unknown".into(),
            Meaning::Unsettled => "unsettled".into(),
        }
    }

    /// Attack 16.
    #[test]
    fn a_name_changes_only_when_the_target_says_so() {
        let mut names = Names::default();
        let s = Bytes::from_static(b"s");
        let first = names.propose(&s, 1, statement("DELETE")).unwrap();
        assert_eq!(text(&names, "s", 1), "DELETE");
        assert_eq!(text(&names, "s", 2), "unsettled");
        names.settle(&first, Settled::Applied);
        let second = names.propose(&s, 2, statement("SELECT")).unwrap();
        assert_eq!(text(&names, "s", 3), "unsettled");
        names.settle(&second, Settled::Kept);
        assert_eq!(text(&names, "s", 3), "DELETE");
        let close = names.propose(&s, 3, None).unwrap();
        assert_eq!(text(&names, "s", 3), "unknown");
        names.settle(&close, Settled::Applied);
        assert!(names.is_empty() && names.is_settled() && names.kept == 0);
    }

    #[test]
    fn the_unnamed_statement_is_lost_when_its_successor_fails() {
        let mut names = Names::default();
        names.set(b"", statement("SELECT 1"));
        let next = names.propose(&Bytes::new(), 1, statement("SELEC 2")).unwrap();
        names.settle(&next, Settled::Lost);
        assert_eq!(text(&names, "", 2), "unknown");
        assert_eq!(names.kept, 0);
    }

    #[test]
    fn there_is_a_bound_on_names() {
        let mut names = Names::default();
        for number in 0..NAMES_MAX {
            names.set(number.to_string().as_bytes(), statement("SELECT 1"));
        }
        let one_more = names.propose(&Bytes::from_static(b"one more"), 1, statement("SELECT 1"));
        assert_eq!(one_more.unwrap_err().code(), "busy");
        names.forget(|_, _| false);
        assert!(names.is_empty() && names.kept == 0);
    }
}
