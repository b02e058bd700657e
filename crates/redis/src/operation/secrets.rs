//! Where commands hold secrets: those arguments are recorded as their length alone.

use super::names::Upper;

/// An argument that is not recorded, but for the first `keep` bytes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) argument: usize,
    pub(crate) keep: usize,
}

/// The secrets among these arguments, in order.
pub(crate) fn secrets(arguments: &[&[u8]]) -> Vec<Secret> {
    let Some((name, rest)) = arguments.split_first() else { return Vec::new() };
    let is = |place: usize, word: &str| {
        arguments.get(place).is_some_and(|argument| argument.eq_ignore_ascii_case(word.as_bytes()))
    };
    let whole = |argument| Secret { argument, keep: 0 };
    match Upper::new(name).as_bytes() {
        // `AUTH secret`, `AUTH user secret`: what is too much may be a piece of one.
        b"AUTH" => (if rest.len() < 2 { 1 } else { 2 }..arguments.len()).map(whole).collect(),
        b"HELLO" => after_auth(arguments, 2).map(whole).into_iter().collect(),
        b"ACL" if is(1, "SETUSER") => acl(arguments),
        b"CONFIG" if is(1, "SET") => {
            let is_secret = |place: &usize| arguments.get(*place).is_some_and(|name| is_secret_setting(name));
            (2..arguments.len()).step_by(2).filter(is_secret).map(|place| place + 1).map(whole).collect()
        }
        b"SENTINEL" if is(1, "SET") || is(1, "CONFIG") => {
            let before = |place: &usize| is(*place, "auth-pass") || is(*place, "sentinel-pass");
            (2..arguments.len()).filter(before).map(|place| place + 1).map(whole).collect()
        }
        b"MIGRATE" => migrate(arguments),
        _ => Vec::new(),
    }
    .into_iter()
    .filter(|secret| secret.argument < arguments.len())
    .collect()
}

/// Whether a command that is not here whole may hold a secret in what is not here.
pub(crate) fn may_follow(arguments: &[&[u8]]) -> bool {
    let Some((name, rest)) = arguments.split_first() else { return true };
    match Upper::new(name).as_bytes() {
        b"AUTH" | b"HELLO" => true,
        b"ACL" | b"CONFIG" | b"SENTINEL" => {
            let set = |word: &&[u8]| {
                ["SET", "SETUSER", "CONFIG"].iter().any(|set| word.eq_ignore_ascii_case(set.as_bytes()))
            };
            rest.first().is_none_or(set)
        }
        // What follows KEYS is keys.
        b"MIGRATE" => !rest.iter().skip(5).any(|word| word.eq_ignore_ascii_case(b"KEYS")),
        _ => false,
    }
}

/// Where the secret of `HELLO version AUTH user secret` is; options may stand before.
pub(crate) fn after_auth(arguments: &[&[u8]], from: usize) -> Option<usize> {
    let mut place = from;
    while let Some(option) = arguments.get(place) {
        if option.eq_ignore_ascii_case(b"AUTH") {
            return Some(place + 2);
        }
        // SETNAME has a value.
        place += if option.eq_ignore_ascii_case(b"SETNAME") { 2 } else { 1 };
    }
    None
}

/// `>password`, `<password`, `#hash`, `!hash`, also within a selector's argument list.
fn acl(arguments: &[&[u8]]) -> Vec<Secret> {
    let is_secret = |(_, rule): &(usize, &&[u8])| matches!(rule.first(), Some(b'>' | b'<' | b'#' | b'!'));
    let rules = arguments.iter().enumerate().skip(3);
    rules.filter(is_secret).map(|(argument, _)| Secret { argument, keep: 1 }).collect()
}

fn is_secret_setting(name: &[u8]) -> bool {
    [
        "requirepass",
        "masterauth",
        "primaryauth",
        "tls-key-file-pass",
        "tls-client-key-file-pass",
        "sentinel-pass",
    ]
    .iter()
    .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// `MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH secret | AUTH2 user secret] [KEYS key …]`.
fn migrate(arguments: &[&[u8]]) -> Vec<Secret> {
    let mut secrets = Vec::new();
    let mut place = 6;
    while let Some(option) = arguments.get(place) {
        match Upper::new(option).as_bytes() {
            b"KEYS" => break,
            b"AUTH" => {
                secrets.push(Secret { argument: place + 1, keep: 0 });
                place += 1;
            }
            b"AUTH2" => {
                secrets.push(Secret { argument: place + 2, keep: 0 });
                place += 2;
            }
            _ => {}
        }
        place += 1;
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[&str]) {
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        let found: Vec<String> = secrets(&words)
            .iter()
            .map(|secret| String::from_utf8(words[secret.argument][secret.keep..].to_vec()).unwrap())
            .collect();
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn every_secret_in_a_command_is_found() {
        check("AUTH s3cret", &["s3cret"]);
        check("auth ada s3cret", &["s3cret"]);
        check("AUTH ada s3cret more", &["s3cret", "more"]);
        check("HELLO 3 AUTH ada s3cret SETNAME x", &["s3cret"]);
        check("HELLO 3 SETNAME auth AUTH ada s3cret", &["s3cret"]);
        check("HELLO 3 setname AUTH", &[]);
        check("ACL SETUSER ada on >s3cret <old #hash !hash ~* +@all", &["s3cret", "old", "hash", "hash"]);
        check("acl getuser >ada", &[]);
        check("CONFIG SET maxmemory 1 RequirePass s3cret masterauth t0o", &["s3cret", "t0o"]);
        check("CONFIG GET requirepass", &[]);
        check("CONFIG SET requirepass", &[]);
        check("MIGRATE h 1 k 0 10 COPY AUTH s3cret", &["s3cret"]);
        check("MIGRATE h 1 auth 0 10 REPLACE AUTH2 ada s3cret KEYS auth b", &["s3cret"]);
        check("SENTINEL SET master auth-pass s3cret", &["s3cret"]);
        check("SET AUTH s3cret", &[]);
    }
}
