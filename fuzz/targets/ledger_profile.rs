//! The strict JSON of envelopes: what it takes, a common parser takes too, and reads alike.
#![no_main]

use verbatim_ledger::envelope::{commitments, judged};
use verbatim_ledger::profile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // An envelope is judged by its beginning, byte by byte, and the rest: as the whole is.
    let judged = judged(bytes).ok();
    let parsed = profile::parse(bytes);
    assert!(judged.is_none() || judged == parsed.as_ref().ok().and_then(commitments));
    if let Ok(value) = parsed {
        let common: serde_json::Value = serde_json::from_slice(bytes).expect("the profile is a part of JSON");
        assert!(alike(&value, &common), "two readings of {:?}", bytes.escape_ascii().to_string());
        // One way to write it: the common parser's compact form, whose escapes are the profile's as well.
        assert_eq!(serde_json::to_vec(&common).expect("it was read").len(), bytes.len());
    }
});

fn alike(ours: &profile::Json<'_>, common: &serde_json::Value) -> bool {
    use profile::Json;
    use serde_json::Value;
    match (ours, common) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(ours), Value::Bool(common)) => ours == common,
        (Json::Integer(ours), Value::Number(common)) => common.as_i64() == Some(*ours),
        (Json::Text(ours), Value::String(common)) => ours == common,
        (Json::List(ours), Value::Array(common)) => {
            ours.len() == common.len() && ours.iter().zip(common).all(|(ours, common)| alike(ours, common))
        }
        (Json::Object(ours), Value::Object(common)) => {
            ours.len() == common.len()
                && ours
                    .iter()
                    .all(|(key, value)| common.get(&**key).is_some_and(|common| alike(value, common)))
        }
        _ => false,
    }
}
