//! Geometric types, all of them double precision.

use super::Reader;
use super::number::float8;

/// The bytes of a point.
const POINT: usize = 16;

pub(super) fn point(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let (x, y) = (input.f64()?, input.f64()?);
    pair(out, x, y)
}

pub(super) fn lseg(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    out.push('[');
    points(out, input, 2)?;
    out.push(']');
    Some(())
}

/// Whether it is closed, and its points.
pub(super) fn path(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let (open, close) = match input.u8()? {
        0 => ('[', ']'),
        1 => ('(', ')'),
        _ => return None,
    };
    list(out, input, open, close)
}

pub(super) fn polygon(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    list(out, input, '(', ')')
}

/// A box: two opposite corners, the upper right one printed first.
pub(super) fn corners(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let (x1, y1, x2, y2) = (input.f64()?, input.f64()?, input.f64()?, input.f64()?);
    let (high_x, low_x) = if float_less(x1, x2) { (x2, x1) } else { (x1, x2) };
    let (high_y, low_y) = if float_less(y1, y2) { (y2, y1) } else { (y1, y2) };
    pair(out, high_x, high_y)?;
    out.push(',');
    pair(out, low_x, low_y)
}

/// The server's order of floats: NaN is the greatest.
fn float_less(a: f64, b: f64) -> bool {
    if a.is_nan() { false } else { b.is_nan() || a < b }
}

/// Ax + By + C = 0.
pub(super) fn line(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    for opening in ['{', ',', ','] {
        out.push(opening);
        float8(out, input.f64()?)?;
    }
    out.push('}');
    Some(())
}

/// Its centre and its radius.
pub(super) fn circle(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    out.push('<');
    point(out, input)?;
    out.push(',');
    float8(out, input.f64()?)?;
    out.push('>');
    Some(())
}

fn list(out: &mut String, input: &mut Reader<'_>, open: char, close: char) -> Option<()> {
    let count = usize::try_from(input.i32()?).ok().filter(|count| *count > 0)?;
    if input.0.len() != count.checked_mul(POINT)? {
        return None;
    }
    out.push(open);
    points(out, input, count)?;
    out.push(close);
    Some(())
}

fn points(out: &mut String, input: &mut Reader<'_>, count: usize) -> Option<()> {
    for place in 0..count {
        if place > 0 {
            out.push(',');
        }
        point(out, input)?;
    }
    Some(())
}

fn pair(out: &mut String, x: f64, y: f64) -> Option<()> {
    out.push('(');
    float8(out, x)?;
    out.push(',');
    float8(out, y)?;
    out.push(')');
    Some(())
}
