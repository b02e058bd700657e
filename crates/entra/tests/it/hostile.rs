//! Whatever is sent, the providers answer; they never panic, and never let it in.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use verbatim_core::{IdentityProvider, Token};

use crate::support::Bench;

struct Hostile {
    runtime: Runtime,
    bench: Bench,
}

fn hostile() -> Hostile {
    let runtime = Runtime::new().unwrap();
    let bench = runtime.block_on(async {
        let bench = Bench::with(|entra| entra.v1 = true).await;
        assert!(bench.providers.refresh().await);
        bench
    });
    Hostile { runtime, bench }
}

impl Hostile {
    fn passes(&self, token: Vec<u8>) -> bool {
        let providers = Arc::clone(&self.bench.providers);
        self.runtime.block_on(async move { providers.verify(&Token::new(token)).await.is_ok() })
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("11 13")),
        Just(json!(crate::support::PERSON)),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

const CLAIMS: [&str; 26] = [
    "iss",
    "aud",
    "tid",
    "oid",
    "ver",
    "exp",
    "nbf",
    "iat",
    "azp",
    "appid",
    "idtyp",
    "scp",
    "roles",
    "groups",
    "name",
    "preferred_username",
    "xms_act_fct",
    "xms_sub_fct",
    "xms_tnt_fct",
    "xms_par_app_azp",
    "_claim_names",
    "hasgroups",
    "acct",
    "idp",
    "uti",
    "nonce",
];

#[test]
fn any_bytes() {
    let hostile = hostile();
    proptest!(|(token in proptest::collection::vec(any::<u8>(), 0..2000))| {
        prop_assert!(!hostile.passes(token));
    });
}

#[test]
fn any_header_and_payload_that_nobody_signed() {
    let hostile = hostile();
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    proptest!(|(header in any_json(), payload in any_json(), signature in "[A-Za-z0-9_-]{0,400}")| {
        let token = [encode(&header), encode(&payload), signature].join(".");
        prop_assert!(!hostile.passes(token.into_bytes()));
    });
}

/// A token that the issuer did sign, with any claim replaced by anything: an answer, whatever it is.
#[test]
fn any_signed_claim() {
    let hostile = hostile();
    let people = [hostile.bench.person(), hostile.bench.agent(), hostile.bench.workload()];
    proptest!(ProptestConfig::with_cases(200), |(
        who in 0..3_usize,
        changes in proptest::collection::vec((0..CLAIMS.len(), any_json()), 1..4),
    )| {
        let mut claims = people[who].clone();
        for (place, value) in changes {
            claims.insert(CLAIMS[place].to_owned(), value);
        }
        let token = hostile.bench.idp.mint(&Value::Object(claims)).unwrap();
        let _answered = hostile.passes(token.into_bytes());
    });
}

/// A good token with any of its bytes changed never passes, unless nothing was changed.
#[test]
fn any_byte_changed() {
    let hostile = hostile();
    let good = hostile.bench.idp.mint(&Value::Object(hostile.bench.person())).unwrap().into_bytes();
    assert!(hostile.passes(good.clone()));
    proptest!(|(place in 0..good.len(), byte in any::<u8>())| {
        let mut changed = good.clone();
        changed[place] = byte;
        prop_assert_eq!(hostile.passes(changed.clone()), changed == good);
    });
}
