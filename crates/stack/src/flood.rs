//! Keeps a flood of refused logins from filling the record: past a number a minute, an address's refusals are counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use verbatim_core::{AuditEvent, Timestamp, Value, Visitor, event::kind};

/// How many refusals of one address are recorded one by one in a [`WINDOW`].
pub const EACH_MAX: u64 = 300;
/// The time that refusals are counted over.
pub const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses are told apart; those beyond share one count, under the unspecified address.
pub const ADDRESSES_MAX: usize = 10_000;

/// Refusals by address.
#[derive(Default)]
pub struct Floods(Mutex<HashMap<IpAddr, Window>>);

struct Window {
    from: Timestamp,
    refusals: u64,
}

impl Floods {
    /// Counts a refusal of `address`; says whether it gets entries of its own.
    pub fn admits(&self, address: IpAddr, now: Timestamp) -> bool {
        let mut windows = self.0.lock();
        let known = windows.contains_key(&address) || windows.len() < ADDRESSES_MAX;
        let address = if known { address.to_canonical() } else { IpAddr::from([0, 0, 0, 0]) };
        let window = windows.entry(address).or_insert(Window { from: now, refusals: 0 });
        window.refusals += 1;
        window.refusals <= EACH_MAX
    }

    /// Takes the windows that are over, and returns those with refusals that have no entries of their own.
    pub fn over(&self, now: Timestamp) -> Vec<Flood> {
        let mut over = Vec::new();
        self.0.lock().retain(|address, window| {
            if now.since(window.from) < WINDOW && now >= window.from {
                return true;
            }
            if window.refusals > EACH_MAX {
                let count = window.refusals - EACH_MAX;
                over.push(Flood { address: *address, count, from: window.from, until: now });
            }
            false
        });
        over
    }
}

/// `flood`: `addr, count, from, until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flood {
    /// Who; the unspecified address for those beyond [`ADDRESSES_MAX`].
    pub address: IpAddr,
    /// How many refused logins have no entries of their own.
    pub count: u64,
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl AuditEvent for Flood {
    fn kind(&self) -> &str {
        kind::FLOOD
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("addr", Value::Text(&self.address.to_string()));
        visitor.field("count", Value::Unsigned(self.count));
        visitor.field("from", Value::Time(self.from));
        visitor.field("until", Value::Time(self.until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_one_entry_with_a_count() {
        let floods = Floods::default();
        let start = Timestamp::from_unix_seconds(1_000);
        let attacker = IpAddr::from([192, 0, 2, 1]);
        let alone = (0..EACH_MAX + 7).filter(|_| floods.admits(attacker, start)).count();
        assert_eq!(alone as u64, EACH_MAX);
        assert!(floods.admits(IpAddr::from([192, 0, 2, 2]), start));
        assert_eq!(floods.over(start), []);
        let end = start.plus(WINDOW);
        assert_eq!(floods.over(end), [Flood { address: attacker, count: 7, from: start, until: end }]);
        assert!(floods.admits(attacker, end));
    }

    #[test]
    fn many_addresses_share_one_count() {
        let floods = Floods::default();
        let start = Timestamp::from_unix_seconds(1_000);
        for number in 0..(ADDRESSES_MAX as u32 + 50_000) {
            floods.admits(IpAddr::from(number.to_be_bytes()), start);
        }
        assert!(floods.0.lock().len() <= ADDRESSES_MAX + 1);
    }
}
