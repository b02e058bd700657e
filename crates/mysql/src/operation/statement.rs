//! What the gateway remembers of prepared statements, and the values in the commands that use them.

use std::collections::{BTreeMap, HashMap};

use bytes::{Bytes, BytesMut};
use verbatim_core::{Parameter, ParameterValue, Part, Refusal, json};

use crate::capability::QUERY_ATTRIBUTES;
use crate::frame::{Malformed, Reader, readable};
use crate::values::ValueType;

/// How many statements a session may have prepared.
const STATEMENTS_MAX: usize = 65_536;
/// How much of their texts, and how much long data, is held for a session.
const HELD_MAX: usize = 256 << 20;
/// How a client names the statement that it prepared last (MariaDB).
pub(crate) const LAST: u32 = u32::MAX;
/// In COM_STMT_EXECUTE: any of these bits asks for a cursor.
const CURSOR: u8 = 0x07;
/// In COM_STMT_EXECUTE: the number of parameters is there, and query attributes may be among them.
const PARAMETER_COUNT_AVAILABLE: u8 = 0x08;
/// In COM_STMT_BULK_EXECUTE: the types are there.
const BULK_TYPES: u16 = 128;

/// A prepared statement.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    /// As it was prepared.
    pub(crate) text: Bytes,
    parameters: u16,
    /// As last sent: an execution may leave them out.
    types: Vec<ValueType>,
    /// What came by COM_STMT_SEND_LONG_DATA, by parameter.
    long_data: BTreeMap<u16, BytesMut>,
    /// Long data was refused, so that an execution would run without it.
    poisoned: Option<Refusal>,
}

/// The statements of a session, by the target's numbers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    statements: HashMap<u32, Statement>,
    last: Option<u32>,
    held: usize,
}

impl Memory {
    /// A statement, by its number or as the last.
    pub(crate) fn get(&self, id: u32) -> Option<&Statement> {
        self.statements.get(&self.number(id)?)
    }

    fn number(&self, id: u32) -> Option<u32> {
        if id == LAST { self.last } else { Some(id) }
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut Statement> {
        let id = self.number(id)?;
        self.statements.get_mut(&id)
    }

    /// Whether so many more bytes, or another statement, are too much.
    pub(crate) fn is_full(&self, more: usize) -> bool {
        self.statements.len() >= STATEMENTS_MAX || self.held.saturating_add(more) > HELD_MAX
    }

    /// The target prepared a statement, or did not.
    pub(crate) fn prepared(&mut self, prepared: Option<(u32, Bytes, u16)>) {
        self.last = prepared.as_ref().map(|(id, _, _)| *id);
        let Some((id, text, parameters)) = prepared else { return };
        self.held += text.len();
        // The text's buffer may be many times as long.
        let text = Bytes::copy_from_slice(&text);
        let statement = Statement { text, parameters, ..Statement::default() };
        if let Some(old) = self.statements.insert(id, statement) {
            self.release(&old);
        }
    }

    fn release(&mut self, old: &Statement) {
        let data: usize = old.long_data.values().map(BytesMut::len).sum();
        self.held = self.held.saturating_sub(old.text.len() + data);
    }

    /// The statement was closed.
    pub(crate) fn close(&mut self, id: u32) {
        let Some(id) = self.number(id) else { return };
        if self.last == Some(id) {
            self.last = None;
        }
        if let Some(old) = self.statements.remove(&id) {
            self.release(&old);
        }
    }

    /// The statement was executed, or reset: what was sent for it is used up.
    pub(crate) fn executed(&mut self, id: u32, types: Option<Vec<ValueType>>) {
        let Some(statement) = self.get_mut(id) else { return };
        if let Some(types) = types {
            statement.types = types;
        }
        statement.poisoned = None;
        let used: usize = std::mem::take(&mut statement.long_data).values().map(BytesMut::len).sum();
        self.held = self.held.saturating_sub(used);
    }

    /// A piece of a parameter's value came. One of a parameter that is not there is the target's to complain of.
    pub(crate) fn long_data(&mut self, id: u32, parameter: u16, data: &[u8]) {
        let full = self.held.saturating_add(data.len()) > HELD_MAX;
        let Some(statement) = self.get_mut(id) else { return };
        if parameter >= statement.parameters {
            return;
        }
        if full {
            statement.poisoned = Some(Refusal::Busy { reason: "long data of prepared statements".into() });
            return;
        }
        statement.long_data.entry(parameter).or_default().extend_from_slice(data);
        self.held += data.len();
    }

    /// Long data for it was refused.
    pub(crate) fn poison(&mut self, id: u32, refusal: &Refusal) {
        if let Some(statement) = self.get_mut(id) {
            statement.poisoned = Some(refusal.clone());
        }
    }

    /// Every statement is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A query attribute: a name and a value beside the statement.
type Attribute = (Bytes, Parameter);

/// What a command says beside a statement's text.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) attributes: Vec<Attribute>,
    /// The types, where they were sent: known once the command is forwarded.
    pub(crate) types: Option<Vec<ValueType>>,
    /// A cursor was asked for.
    pub(crate) cursor: bool,
}

impl Arguments {
    /// The attributes, as they are recorded.
    pub(crate) fn part(&self) -> Option<Part> {
        if self.attributes.is_empty() {
            return None;
        }
        let mut out = vec![b'['];
        for (place, (name, parameter)) in self.attributes.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b"{\"name\":" } else { b",{\"name\":" });
            json::string(&mut out, &readable(name));
            let mut one = Vec::new();
            Parameter::write_list(std::slice::from_ref(parameter), &mut one);
            // `[{"type":…}]` without its brackets continues the object.
            out.push(b',');
            out.extend_from_slice(one.get(2..one.len().saturating_sub(1)).unwrap_or_default());
        }
        out.push(b']');
        Some(Part { name: "attributes", json: out.into() })
    }

    /// The value of the attribute that carries a trace.
    pub(crate) fn traceparent(&self) -> Option<String> {
        let wanted =
            |(name, _): &&Attribute| name.eq_ignore_ascii_case(verbatim_core::trace::NAME.as_bytes());
        match &self.attributes.iter().find(wanted)?.1.value {
            ParameterValue::Text(text) => verbatim_core::trace::traceparent(text),
            _ => None,
        }
    }
}

impl Statement {
    /// Whether its next execution would change what is remembered of it.
    pub(crate) fn has_long_data(&self) -> bool {
        !self.long_data.is_empty() || self.poisoned.is_some()
    }

    /// Why it must not be executed.
    pub(crate) fn poisoned(&self) -> Option<&Refusal> {
        self.poisoned.as_ref()
    }

    /// Whether these types are news.
    pub(crate) fn differs(&self, types: Option<&Vec<ValueType>>) -> bool {
        types.is_some_and(|types| *types != self.types)
    }

    /// Reads a COM_STMT_EXECUTE behind its statement's number.
    pub(crate) fn execute(&self, payload: Bytes, capabilities: u64) -> Result<Arguments, Malformed> {
        let attributes = capabilities & QUERY_ATTRIBUTES != 0;
        let counted = payload.first().is_some_and(|flags| flags & PARAMETER_COUNT_AVAILABLE != 0);
        match (attributes, counted) {
            (false, _) => self.execute_as(payload, false, false),
            (true, true) => self.execute_as(payload, true, true),
            // Documentation and servers differ in whether the count is there without its flag: what both readings take
            // is ambiguous.
            (true, false) => match (
                self.execute_as(payload.clone(), self.parameters > 0, true),
                self.execute_as(payload, false, false),
            ) {
                (Ok(arguments), Err(_)) | (Err(_), Ok(arguments)) => Ok(arguments),
                (Ok(arguments), Ok(_)) if self.parameters == 0 => Ok(arguments),
                _ => Err(Malformed { field: "parameters" }),
            },
        }
    }

    fn execute_as(&self, payload: Bytes, counted: bool, named: bool) -> Result<Arguments, Malformed> {
        let mut reader = Reader::new(payload);
        let flags = reader.u8("flags")?;
        reader.u32("iterations")?;
        let expected = usize::from(self.parameters);
        let count = if counted { count(&mut reader, expected)? } else { expected };
        let mut arguments = Arguments { cursor: flags & CURSOR != 0, ..Arguments::default() };
        if count > 0 {
            self.values(&mut reader, count, named, &mut arguments)?;
        }
        reader.end("parameters")?;
        Ok(arguments)
    }

    fn values(
        &self,
        reader: &mut Reader,
        count: usize,
        named: bool,
        arguments: &mut Arguments,
    ) -> Result<(), Malformed> {
        let nulls = reader.take(count.div_ceil(8), "null bitmap")?;
        let mut names = Vec::new();
        let own = usize::from(self.parameters);
        let types = match reader.u8("new types")? {
            0 if count == self.types.len() => self.types.clone(),
            1 => types(reader, count, named, &mut names)?,
            _ => return Err(Malformed { field: "types" }),
        };
        for (place, kind) in types.iter().enumerate() {
            let long = u16::try_from(place).ok().and_then(|place| self.long_data.get(&place));
            let value = match long {
                Some(data) => kind.string(&data.clone().freeze()),
                None if is_null(&nulls, place) => ParameterValue::Null,
                None => kind.value(reader)?,
            };
            let parameter = Parameter { type_name: kind.name(), value };
            if place < own {
                arguments.parameters.push(parameter);
            } else {
                arguments.attributes.push((names.get(place).cloned().unwrap_or_default(), parameter));
            }
        }
        // Attributes come anew each time, and so do the types of what is behind them.
        arguments.types = Some(types);
        Ok(())
    }

    /// Reads a COM_STMT_BULK_EXECUTE behind its statement's number: the values of every row, one after the other.
    pub(crate) fn bulk(&self, payload: Bytes) -> Result<Arguments, Malformed> {
        let mut reader = Reader::new(payload);
        let flags = reader.u16("flags")?;
        let own = usize::from(self.parameters);
        let types = match flags & BULK_TYPES {
            0 if own == self.types.len() => self.types.clone(),
            0 => return Err(Malformed { field: "types" }),
            _ => types(&mut reader, own, false, &mut Vec::new())?,
        };
        let mut arguments = Arguments::default();
        while !types.is_empty() && !reader.rest().is_empty() {
            for kind in &types {
                let (type_name, value) = match reader.u8("indicator")? {
                    0 => (kind.name(), kind.value(&mut reader)?),
                    1 => (kind.name(), ParameterValue::Null),
                    2 => ("default".into(), ParameterValue::Null),
                    3 => ("ignore".into(), ParameterValue::Null),
                    _ => return Err(Malformed { field: "indicator" }),
                };
                arguments.parameters.push(Parameter { type_name, value });
            }
        }
        reader.end("parameters")?;
        arguments.types = Some(types);
        Ok(arguments)
    }
}

/// Reads what stands before a COM_QUERY's text where query attributes were negotiated; the rest is the text.
pub(crate) fn query_attributes(payload: Bytes) -> Result<(Arguments, Bytes), Malformed> {
    let mut reader = Reader::new(payload);
    let count = count(&mut reader, 0)?;
    if reader.lenenc("parameter sets")? != 1 {
        return Err(Malformed { field: "parameter sets" });
    }
    let mut arguments = Arguments::default();
    if count > 0 {
        Statement::default().values(&mut reader, count, true, &mut arguments)?;
    }
    Ok((arguments, reader.rest().clone()))
}

/// How many parameters: at least so many, and no more than the bytes left can hold.
fn count(reader: &mut Reader, least: usize) -> Result<usize, Malformed> {
    let count = usize::try_from(reader.lenenc("parameters")?).unwrap_or(usize::MAX);
    // Each has a bit at least.
    match count >= least && count.div_ceil(8) <= reader.rest().len() {
        true => Ok(count),
        false => Err(Malformed { field: "parameters" }),
    }
}

fn types(
    reader: &mut Reader,
    count: usize,
    named: bool,
    names: &mut Vec<Bytes>,
) -> Result<Vec<ValueType>, Malformed> {
    if count.saturating_mul(2) > reader.rest().len() {
        return Err(Malformed { field: "types" });
    }
    let mut types = Vec::with_capacity(count);
    for _ in 0..count {
        types.push(ValueType::read(reader)?);
        if named {
            names.push(reader.bytes("parameter name")?);
        }
    }
    Ok(types)
}

fn is_null(bitmap: &[u8], place: usize) -> bool {
    bitmap.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1)
}
