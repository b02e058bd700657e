//! What the gateway has to know of commands: how each is answered, and which are not for a shared server.

use std::collections::HashSet;

use verbatim_core::Refusal;

use super::{Reply, Role, Topic};

/// How long a name may be that is compared to one here.
const NAME_MAX: usize = 32;

/// Refused unless `allow_commands` names them, with all that they can do.
const WHOLE: [&str; 8] =
    ["DEBUG", "FAILOVER", "PSYNC", "REPLCONF", "REPLICAOF", "SHUTDOWN", "SLAVEOF", "SYNC"];
/// The same, but of these only some subcommands.
const PARTS: [(&str, &[&str]); 4] = [
    ("CLIENT", &["KILL"]),
    (
        "CLUSTER",
        &[
            "ADDSLOTS",
            "ADDSLOTSRANGE",
            "BUMPEPOCH",
            "DELSLOTS",
            "DELSLOTSRANGE",
            "FAILOVER",
            "FLUSHSLOTS",
            "FORGET",
            "MEET",
            "MIGRATION",
            "REPLICATE",
            "RESET",
            "SAVECONFIG",
            "SET-CONFIG-EPOCH",
            "SETSLOT",
        ],
    ),
    ("MODULE", &["LOAD", "LOADEX", "UNLOAD"]),
    // The debugger speaks a protocol of its own, and stops the server for everybody.
    ("SCRIPT", &["DEBUG"]),
];

/// A command's name or word in capitals; nothing where it is longer than any that is known.
pub(crate) struct Upper {
    bytes: [u8; NAME_MAX],
    length: usize,
}

impl Upper {
    pub(crate) fn new(word: &[u8]) -> Self {
        let mut bytes = [0; NAME_MAX];
        let length = match bytes.get_mut(..word.len()) {
            Some(room) => {
                room.copy_from_slice(word);
                room.make_ascii_uppercase();
                word.len()
            }
            None => 0,
        };
        Self { bytes, length }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// `allow_commands`: what of the refused commands a connection lets through.
#[derive(Debug, Default, Clone)]
pub(crate) struct Allowed(HashSet<Vec<u8>>);

impl Allowed {
    /// Takes names as `DEBUG`, `MODULE|LOAD` or `module load`.
    ///
    /// # Errors
    /// The first that is no command's name, or none that needs to be allowed.
    pub(crate) fn read(names: &[String]) -> Result<Self, String> {
        let mut allowed = HashSet::new();
        for name in names {
            let words: Vec<&str> = name.split(['|', ' ']).filter(|word| !word.is_empty()).collect();
            let known = match *words.as_slice() {
                [name] => {
                    let is = |known: &&str| known.eq_ignore_ascii_case(name);
                    WHOLE.iter().any(is) || PARTS.iter().any(|(container, _)| is(container))
                }
                [container, part] => PARTS.iter().any(|(name, parts)| {
                    name.eq_ignore_ascii_case(container)
                        && parts.iter().any(|known| known.eq_ignore_ascii_case(part))
                }),
                _ => false,
            };
            if !known {
                return Err(format!(
                    "{name:?} is no command that is refused by default; those are {}",
                    refused_by_default().join(", ")
                ));
            }
            allowed.insert(words.join("|").to_ascii_uppercase().into_bytes());
        }
        Ok(Self(allowed))
    }

    /// Why these arguments are not passed on.
    pub(crate) fn refusal(&self, arguments: &[&[u8]]) -> Option<Refusal> {
        let name = Upper::new(arguments.first()?);
        let name = name.as_bytes();
        let shown = if WHOLE.iter().any(|known| known.as_bytes() == name) {
            WHOLE.iter().find(|known| known.as_bytes() == name).map(|known| (*known).to_owned())?
        } else {
            let (container, parts) = PARTS.iter().find(|(known, _)| known.as_bytes() == name)?;
            let part = Upper::new(arguments.get(1)?);
            let part = parts.iter().find(|known| known.as_bytes() == part.as_bytes())?;
            format!("{container}|{part}")
        };
        let allowed = self.0.contains(name) || self.0.contains(shown.as_bytes());
        (!allowed).then(|| Refusal::NotAllowed {
            code: "command",
            reason: format!("{shown} is not in the connection's allow_commands"),
        })
    }
}

fn refused_by_default() -> Vec<String> {
    let parts = PARTS.iter().flat_map(|(name, parts)| parts.iter().map(move |part| format!("{name}|{part}")));
    WHOLE.iter().map(|name| (*name).to_owned()).chain(parts).collect()
}

/// How a command is answered.
pub(super) fn role(arguments: &[&[u8]]) -> Role {
    let Some((name, rest)) = arguments.split_first() else { return Role::Plain };
    let name = Upper::new(name);
    match (name.as_bytes(), rest) {
        (b"MULTI", []) => Role::Multi,
        (b"EXEC", []) => Role::Exec,
        (b"DISCARD", []) => Role::Discard,
        (b"RESET", []) => Role::Reset,
        (b"QUIT", _) => Role::Quit,
        (b"MONITOR", []) => Role::Monitor,
        (b"SYNC" | b"PSYNC", _) => Role::Replication,
        (b"SUBSCRIBE", rest) => subscribe(Topic::Channel, rest),
        (b"PSUBSCRIBE", rest) => subscribe(Topic::Pattern, rest),
        (b"SSUBSCRIBE", rest) => subscribe(Topic::Shard, rest),
        (b"UNSUBSCRIBE", rest) => unsubscribe(Topic::Channel, rest),
        (b"PUNSUBSCRIBE", rest) => unsubscribe(Topic::Pattern, rest),
        (b"SUNSUBSCRIBE", rest) => unsubscribe(Topic::Shard, rest),
        (b"HELLO", [version, ..]) => match *version {
            b"2" => Role::Hello(2),
            b"3" => Role::Hello(3),
            _ => Role::Plain,
        },
        (b"CLIENT", [part, rest @ ..]) => client(Upper::new(part).as_bytes(), rest),
        (
            b"BLPOP" | b"BRPOP" | b"BRPOPLPUSH" | b"BLMOVE" | b"BLMPOP" | b"BZPOPMIN" | b"BZPOPMAX"
            | b"BZMPOP" | b"WAIT" | b"WAITAOF",
            _,
        ) => Role::Blocking,
        (b"XREAD" | b"XREADGROUP", rest) if rest.iter().any(|word| word.eq_ignore_ascii_case(b"BLOCK")) => {
            Role::Blocking
        }
        _ => Role::Plain,
    }
}

/// Without a channel it is an error like any other.
fn subscribe(topic: Topic, channels: &[&[u8]]) -> Role {
    match u64::try_from(channels.len()) {
        Ok(left @ 1..) => Role::Subscribe { topic, ends: false, left },
        _ => Role::Plain,
    }
}

/// Without a channel it is all of them.
fn unsubscribe(topic: Topic, channels: &[&[u8]]) -> Role {
    Role::Subscribe { topic, ends: true, left: channels.len() as u64 }
}

fn client(part: &[u8], rest: &[&[u8]]) -> Role {
    match (part, rest) {
        (b"REPLY", [mode]) => match Upper::new(mode).as_bytes() {
            b"ON" => Role::Reply(Reply::On),
            b"OFF" => Role::Reply(Reply::Off),
            b"SKIP" => Role::Reply(Reply::Skip),
            _ => Role::Plain,
        },
        (b"TRACKING", [on, ..]) if on.eq_ignore_ascii_case(b"ON") => Role::Tracking,
        _ => Role::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(allowed: &[&str], line: &str) -> bool {
        let names: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        Allowed::read(&names).unwrap().refusal(&words).is_some()
    }

    #[test]
    fn what_breaks_a_shared_server_is_refused_in_any_case_of_its_letters() {
        for line in [
            "SHUTDOWN",
            "shutdown NOSAVE",
            "rEpLiCaOf no one",
            "SLAVEOF h 1",
            "mOdUlE lOaD x.so",
            "MODULE LOADEX x",
            "MODULE UNLOAD x",
            "debug sleep 1",
            "SYNC",
            "PSYNC ? -1",
            "REPLCONF ACK 1",
            "FAILOVER",
            "CLUSTER MEET h 1",
            "cluster setslot 1 NODE x",
            "CLIENT KILL ID 4",
            "SCRIPT DEBUG SYNC",
        ] {
            assert!(refused(&[], line), "{line}");
        }
        for line in
            ["CONFIG SET a b", "ACL SETUSER x", "SAVE", "MODULE LIST", "CLUSTER INFO", "CLIENT LIST", "GET k"]
        {
            assert!(!refused(&[], line), "{line}");
        }
    }

    #[test]
    fn allow_commands_names_a_command_or_one_of_its_subcommands() {
        assert!(!refused(&["debug"], "DEBUG SLEEP 0"));
        assert!(!refused(&["MODULE|LOAD"], "module load x"));
        assert!(!refused(&["module load"], "module load x"));
        assert!(refused(&["MODULE|LOAD"], "module unload x"));
        assert!(!refused(&["CLUSTER"], "CLUSTER MEET h 1"));
        assert!(refused(&["DEBUG"], "SHUTDOWN"));
        for wrong in ["", "GET", "DEBUG|SLEEP", "MODULE|LIST", "a b c"] {
            assert!(Allowed::read(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
