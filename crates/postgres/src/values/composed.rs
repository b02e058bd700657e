//! Values made of others: arrays, vectors, ranges and multiranges.

use std::fmt::Write as _;

use super::types::{self, Shape};
use super::{Printer, Reader};

const DIMENSIONS_MAX: usize = 6;
/// The server's white space in arrays and ranges.
const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

/// The head of an array.
struct Dimensions {
    /// How many elements, and the number of the first, of each dimension.
    bounds: Vec<(usize, i32)>,
    shape: Shape,
}

/// Dimensions, flags, the element's type, bounds.
fn dimensions(input: &mut Reader<'_>, element: u32) -> Option<Dimensions> {
    let count = usize::try_from(input.i32()?).ok().filter(|count| *count <= DIMENSIONS_MAX)?;
    let flags = input.u32()?;
    // The server takes an array of the declared type alone.
    if flags > 1 || input.u32()? != element {
        return None;
    }
    let (_, shape) = types::find(element)?;
    let mut bounds = Vec::with_capacity(count);
    let mut elements = 1_usize;
    for _ in 0..count {
        let (length, lower) = (input.i32()?, input.i32()?);
        lower.checked_add(length)?;
        let length = usize::try_from(length).ok()?;
        elements = elements.checked_mul(length)?;
        bounds.push((length, lower));
    }
    // Each element has a length of four bytes, at least.
    (elements <= input.0.len() / 4 || count == 0).then_some(Dimensions { bounds, shape })
}

/// An element or a bound: none for NULL.
fn element<'a>(input: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    match input.i32()? {
        -1 => Some(None),
        length => Some(Some(input.take(usize::try_from(length).ok()?)?)),
    }
}

/// `{1,NULL,"a b"}`, in front of it the bounds where one does not begin at 1.
pub(super) fn array(out: &mut Printer, input: &mut Reader<'_>, element_oid: u32) -> Option<()> {
    let Dimensions { bounds, shape } = dimensions(input, element_oid)?;
    if bounds.iter().any(|(length, _)| *length == 0) || bounds.is_empty() {
        out.text.push_str("{}");
        return Some(());
    }
    if bounds.iter().any(|(_, lower)| *lower != 1) {
        for (length, lower) in &bounds {
            let upper = i64::from(*lower) + i64::try_from(*length).ok()? - 1;
            write!(out.text, "[{lower}:{upper}]").ok()?;
        }
        out.text.push('=');
    }
    let delimiter = if shape == Shape::Box { ';' } else { ',' };
    let depth = bounds.len();
    // How often each dimension has come to its end, outermost first, as an odometer.
    let mut places = vec![0_usize; depth];
    out.text.extend(std::iter::repeat_n('{', depth));
    loop {
        match element(input)? {
            None => out.text.push_str("NULL"),
            Some(bytes) => quoted_element(out, shape, bytes, delimiter)?,
        }
        let mut closed = 0;
        for (place, (length, _)) in places.iter_mut().zip(&bounds).rev() {
            *place += 1;
            if *place < *length {
                break;
            }
            *place = 0;
            closed += 1;
        }
        out.text.extend(std::iter::repeat_n('}', closed));
        if closed == depth {
            return Some(());
        }
        out.text.push(delimiter);
        out.text.extend(std::iter::repeat_n('{', closed));
    }
}

fn quoted_element(out: &mut Printer, shape: Shape, bytes: &[u8], delimiter: char) -> Option<()> {
    let text = nested(out, shape, bytes)?;
    let special =
        |char: char| matches!(char, '"' | '\\' | '{' | '}') || char == delimiter || SPACE.contains(&char);
    if !text.is_empty() && !text.contains(special) && !text.eq_ignore_ascii_case("null") {
        out.text.push_str(&text);
        return Some(());
    }
    out.text.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            out.text.push('\\');
        }
        out.text.push(char);
    }
    out.text.push('"');
    Some(())
}

/// The text of a value within another, within what the limit leaves.
fn nested(out: &Printer, shape: Shape, bytes: &[u8]) -> Option<String> {
    let mut inner = Printer { text: String::new(), limit: out.limit.checked_sub(out.text.len())? };
    inner.value(shape, bytes)?;
    Some(inner.text)
}

/// `oidvector` and `int2vector`: an array of one dimension from 0, printed as numbers with spaces.
pub(super) fn vector(out: &mut Printer, input: &mut Reader<'_>, element_oid: u32) -> Option<()> {
    let Dimensions { bounds, shape } = dimensions(input, element_oid)?;
    let [(length, 0)] = bounds[..] else { return None };
    for place in 0..length {
        if place > 0 {
            out.text.push(' ');
        }
        let bytes = element(input)??;
        out.value(shape, bytes)?;
    }
    Some(())
}

/// Flags, then the bounds that are there: `[1,3)`, `(,2]`, `empty`.
pub(super) fn range(out: &mut Printer, input: &mut Reader<'_>, bound_oid: u32) -> Option<()> {
    let (_, shape) = types::find(bound_oid)?;
    let flags = input.u8()?;
    if flags & EMPTY != 0 {
        out.text.push_str("empty");
        return Some(());
    }
    let has = |flag: u8| flags & flag != 0;
    out.text.push(if has(LOWER_INCLUSIVE) && !has(LOWER_INFINITE) { '[' } else { '(' });
    if !has(LOWER_INFINITE) {
        quoted_bound(out, shape, element(input)??)?;
    }
    out.text.push(',');
    if !has(UPPER_INFINITE) {
        quoted_bound(out, shape, element(input)??)?;
    }
    out.text.push(if has(UPPER_INCLUSIVE) && !has(UPPER_INFINITE) { ']' } else { ')' });
    Some(())
}

fn quoted_bound(out: &mut Printer, shape: Shape, bytes: &[u8]) -> Option<()> {
    let text = nested(out, shape, bytes)?;
    let special =
        |char: char| matches!(char, '"' | '\\' | '(' | ')' | '[' | ']' | ',') || SPACE.contains(&char);
    if !text.is_empty() && !text.contains(special) {
        out.text.push_str(&text);
        return Some(());
    }
    out.text.push('"');
    for char in text.chars() {
        if matches!(char, '"' | '\\') {
            out.text.push(char);
        }
        out.text.push(char);
    }
    out.text.push('"');
    Some(())
}

/// `{[1,3),[5,6)}`.
pub(super) fn multirange(out: &mut Printer, input: &mut Reader<'_>, range_oid: u32) -> Option<()> {
    let (_, shape) = types::find(range_oid)?;
    let count = usize::try_from(input.i32()?).ok()?;
    out.text.push('{');
    for place in 0..count {
        if place > 0 {
            out.text.push(',');
        }
        let bytes = element(input)??;
        out.value(shape, bytes)?;
    }
    out.text.push('}');
    Some(())
}
