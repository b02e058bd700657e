//! Addresses: `inet`, `cidr`, `macaddr`, `macaddr8`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::Reader;

const V4: u8 = 2;
const V6: u8 = 3;

/// Family, bits, whether it is a `cidr`, length, address.
pub(super) fn address(out: &mut String, input: &mut Reader<'_>, cidr: bool) -> Option<()> {
    let (family, bits, _, length) = (input.u8()?, input.u8()?, input.u8()?, input.u8()?);
    let full = match (family, length) {
        (V4, 4) => {
            let octets: [u8; 4] = input.take(4)?.try_into().ok()?;
            write!(out, "{}", Ipv4Addr::from(octets)).ok()?;
            32
        }
        (V6, 16) => {
            v6(out, input)?;
            128
        }
        _ => return None,
    };
    if bits > full {
        return None;
    }
    match cidr || bits < full {
        true => write!(out, "/{bits}").ok(),
        false => Some(()),
    }
}

/// Eight groups, the longest run of zeros left out, the last two as IPv4 where they stand for such an address. (The
/// standard library's form differs for IPv4-compatible ones, `::1.2.3.4`.)
fn v6(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let mut groups = [0_u16; 8];
    for group in &mut groups {
        *group = input.u16()?;
    }
    let zeros_from = |from: usize| groups.iter().skip(from).take_while(|group| **group == 0).count();
    // The first of the longest runs.
    let (run, length) =
        (0..8).rev().map(|from| (from, zeros_from(from))).max_by_key(|(_, length)| *length)?;
    let run = if length >= 2 { run..run + length } else { 8..8 };
    let [.., fifth, high, low] = groups;
    let v4 = run.start == 0
        && match run.end {
            6 => true,
            7 => low != 1,
            5 => fifth == 0xffff,
            _ => false,
        };
    for (place, group) in groups.iter().enumerate() {
        if run.contains(&place) {
            if place == run.start {
                out.push(':');
            }
            continue;
        }
        if place > 0 {
            out.push(':');
        }
        if place == 6 && v4 {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            return write!(out, "{a}.{b}.{c}.{d}").ok();
        }
        write!(out, "{group:x}").ok()?;
    }
    if run.end == 8 && !run.is_empty() {
        out.push(':');
    }
    Some(())
}

/// Six or eight bytes.
pub(super) fn mac(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let bytes = input.rest();
    for (place, byte) in bytes.iter().enumerate() {
        let separator = if place == 0 { "" } else { ":" };
        write!(out, "{separator}{byte:02x}").ok()?;
    }
    matches!(bytes.len(), 6 | 8).then_some(())
}
