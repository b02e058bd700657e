//! Floating point, `numeric` and `money`.

use std::fmt::Write as _;

use super::Reader;

/// How many digits name any double, and how many a float has at least where two shortest decimals can be equally near.
const DOUBLE_DIGITS: usize = 17;
const FLOAT_DIGITS: usize = 6;
/// More digits than any tie has.
const EXACT_DIGITS: usize = 60;
/// The digits of a base-10000 digit of `numeric`.
const NUMERIC_DIGITS: usize = 4;
const NUMERIC_BASE: i16 = 10_000;
/// The bits of a numeric's scale that count.
const NUMERIC_SCALE_MAX: u16 = 0x3fff;

/// The shortest decimal that is read back as the same value, as the server chooses it.
pub(super) fn float8(out: &mut String, value: f64) -> Option<()> {
    let even = value.to_bits() & 1 == 0;
    let digits = match value.is_finite() {
        true => shortest(
            |text| text.parse() == Ok(value),
            |more| format!("{value:.more$e}"),
            format!("{value:e}"),
            even,
        )?,
        false => value.to_string(),
    };
    float(out, &digits, f64::DIGITS)
}

/// As [`float8`].
pub(super) fn float4(out: &mut String, value: f32) -> Option<()> {
    let even = value.to_bits() & 1 == 0;
    let digits = match value.is_finite() {
        true => shortest(
            |text| text.parse() == Ok(value),
            |more| format!("{value:.more$e}"),
            format!("{value:e}"),
            even,
        )?,
        false => value.to_string(),
    };
    float(out, &digits, f32::DIGITS)
}

/// What the server prints where Rust would print `rust`, the shortest that `is_same`. They differ in two ways. A decimal
/// exactly halfway between two floats is read back only where ties go to even: the server avoids it. And where two
/// decimals are equally near, the server takes the even one. `rounded` has as many digits after the point as it is told.
fn shortest(
    is_same: impl Fn(&str) -> bool,
    rounded: impl Fn(usize) -> String,
    rust: String,
    even: bool,
) -> Option<String> {
    let is_tie = |digits: &str| !beside(digits).iter().all(|near| is_same(near));
    let is_zero = rust.trim_start_matches('-').starts_with('0');
    if even && !is_zero && is_tie(&rust) {
        let mut longer = (1..DOUBLE_DIGITS).map(rounded);
        return longer.find(|digits| is_same(digits) && !is_tie(digits));
    }
    let (mantissa, exponent) = rust.split_once('e')?;
    if mantissa.len() < FLOAT_DIGITS {
        return Some(rust);
    }
    let exact = rounded(EXACT_DIGITS);
    let (kept, beyond) = exact.split_once('e')?.0.split_at_checked(mantissa.len())?;
    let halfway = beyond.strip_prefix('5').is_some_and(|rest| rest.bytes().all(|digit| digit == b'0'));
    let kept_even = kept.bytes().next_back().is_some_and(|digit| digit & 1 == 0);
    let other = format!("{kept}e{exponent}");
    Some(if halfway && kept_even && is_same(&other) { other } else { rust })
}

/// Two decimals so close to this one that nothing but a tie lies between them and it.
fn beside(digits: &str) -> [String; 2] {
    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const NINES: &str = "9999999999999999999999999999999999999999999999999999999999999999";
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((digits, "0"));
    let point = if mantissa.contains('.') { "" } else { "." };
    let above = format!("{mantissa}{point}{ZEROS}1e{exponent}");
    // The shortest decimal ends in no zero, so its last digit can be one less.
    let (kept, last) = mantissa.split_at_checked(mantissa.len() - 1).unwrap_or_default();
    let less = last.parse::<u8>().unwrap_or(1).saturating_sub(1);
    [above, format!("{kept}{less}{point}{NINES}e{exponent}")]
}

/// Writes Rust's `1.25e-7` as the server does: without an exponent from 0.0001 up to `precision` digits.
fn float(out: &mut String, digits: &str, precision: u32) -> Option<()> {
    let Some((mantissa, exponent)) = digits.split_once('e') else {
        out.push_str(match digits {
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            _ => "NaN",
        });
        return Some(());
    };
    let exponent: i32 = exponent.parse().ok()?;
    let mantissa = match mantissa.strip_prefix('-') {
        Some(positive) => {
            out.push('-');
            positive
        }
        None => mantissa,
    };
    if exponent < -4 || i64::from(exponent) >= i64::from(precision) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.abs()).ok();
    }
    let mut digits = mantissa.chars().filter(char::is_ascii_digit);
    if exponent < 0 {
        out.push_str("0.");
        out.extend((1..-exponent).map(|_| '0'));
    } else {
        out.extend((0..=exponent).map(|_| digits.next().unwrap_or('0')));
        let mut rest = digits.peekable();
        if rest.peek().is_some() {
            out.push('.');
        }
        out.extend(rest);
        return Some(());
    }
    out.extend(digits);
    Some(())
}

/// Digits, weight, sign and scale, then digits in base 10000.
pub(super) fn numeric(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let count = usize::from(input.u16()?);
    let weight = i32::from(input.i16()?);
    let sign = input.u16()?;
    let scale = input.u16()?;
    if input.0.len() != count * 2 || scale > NUMERIC_SCALE_MAX {
        return None;
    }
    let special = match sign {
        0 | 0x4000 => None,
        0xc000 => Some("NaN"),
        0xd000 => Some("Infinity"),
        0xf000 => Some("-Infinity"),
        _ => return None,
    };
    let digits = (0..count).map(|_| input.i16()).collect::<Option<Vec<_>>>()?;
    if digits.iter().any(|digit| !(0..NUMERIC_BASE).contains(digit)) {
        return None;
    }
    if let Some(special) = special {
        out.push_str(special);
        return Some(());
    }
    // The base-10000 digit with this weight.
    let digit =
        |at: i32| usize::try_from(weight - at).ok().and_then(|place| digits.get(place)).copied().unwrap_or(0);
    let start = out.len();
    let mut whole = String::new();
    for at in (0..=weight.max(0)).rev() {
        write!(whole, "{:04}", digit(at)).ok()?;
    }
    match whole.trim_start_matches('0') {
        "" => out.push('0'),
        whole => out.push_str(whole),
    }
    if scale > 0 {
        let scale = usize::from(scale);
        let groups = i32::try_from(scale.div_ceil(NUMERIC_DIGITS)).ok()?;
        let mut fraction = String::new();
        for at in 1..=groups {
            write!(fraction, "{:04}", digit(-at)).ok()?;
        }
        fraction.truncate(scale);
        out.push('.');
        out.push_str(&fraction);
    }
    let printed = out.get(start..).unwrap_or_default();
    if sign == 0x4000 && printed.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        out.insert(start, '-');
    }
    Some(())
}

/// Cents, as the locale `C` prints them: `-$1,234.50`.
pub(super) fn money(out: &mut String, value: i64) -> Option<()> {
    if value < 0 {
        out.push('-');
    }
    out.push('$');
    let cents = value.unsigned_abs();
    let whole = (cents / 100).to_string();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    write!(out, ".{:02}", cents % 100).ok()
}
