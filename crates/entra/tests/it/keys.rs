//! Discovery and keys: how they are loaded, rolled over, dropped, and what an outage does.

use serde_json::{Value, json};
use verbatim_entra::{Providers, Roots};
use verbatim_testkit::idp::{Fault, Idp, Options, Published};

use crate::support::{Bench, OTHER_TENANT, TENANT, settings, word};

#[tokio::test]
async fn https_under_an_authority_of_ones_own() {
    let idp = Idp::start(Options { https: true, ..Options::default() }).await.unwrap();
    let mut trusting = settings(&idp);
    let strange = Bench::on(idp, trusting.clone());
    assert_eq!(strange.outcome(&strange.workload()).await, "T keys");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, strange.idp.ca_pem().unwrap()).unwrap();
    trusting.common.ca = Roots::Pem(path);
    let bench = Bench::on(strange.idp, trusting);
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    assert!(bench.idp.count("check_member_groups") > 0);
}

#[tokio::test]
async fn ready_once_every_tenants_keys_are_there() {
    let bench = Bench::with(|entra| {
        entra.tenants.push(OTHER_TENANT.into());
        entra.v1 = true;
        entra.groups.clear();
    })
    .await;
    assert!(!bench.providers.ready());
    assert!(bench.providers.refresh().await);
    assert!(bench.providers.ready());
    assert_eq!(bench.idp.count("jwks"), 4);
    let counters = bench.providers.counters();
    assert_eq!((counters.discovery_fetches, counters.jwks_fetches), (4, 4));
}

#[tokio::test]
async fn start_loads_keys_in_the_background() {
    let bench = Bench::new().await;
    bench.providers.start();
    while !bench.providers.ready() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    assert_eq!(bench.idp.count("jwks"), 1);
}

#[tokio::test]
async fn the_first_token_loads_keys_itself() {
    let bench = Bench::new().await;
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    assert_eq!((bench.idp.count("discovery"), bench.idp.count("jwks")), (1, 1));
}

#[tokio::test]
async fn a_rollover_right_after_start_is_followed() {
    let bench = Bench::new().await;
    assert!(bench.providers.refresh().await);
    for (published, signing) in [(["k2", "k3"], "k3"), (["k3", "k4"], "k4"), (["k4", "k1"], "k1")] {
        let published = published.map(Published::signing).to_vec();
        bench.idp.change(|state| state.keys(published, signing));
        assert_eq!(bench.outcome(&bench.workload()).await, "ok", "{signing}");
    }
}

#[tokio::test]
async fn a_dropped_key_verifies_nothing_after_the_next_refresh() {
    let bench = Bench::new().await;
    let token = bench.idp.mint(&Value::Object(bench.workload())).unwrap();
    assert_eq!(word(&bench.verify(&token).await), "ok");
    assert_eq!(word(&bench.verify(&token).await), "ok");
    assert_eq!(bench.providers.counters().tokens_cached, 1);
    bench.idp.change(|state| state.keys(vec![Published::signing("k2")], "k2"));
    assert!(bench.providers.refresh().await);
    assert_eq!(word(&bench.verify(&token).await), "A kid");
}

#[tokio::test]
async fn another_key_under_the_same_kid_ends_what_was_verified() {
    let bench = Bench::new().await;
    let token = bench.idp.mint(&Value::Object(bench.workload())).unwrap();
    assert_eq!(word(&bench.verify(&token).await), "ok");
    let other = Published { key: "k3".to_owned(), ..Published::signing("k1") };
    bench.idp.change(|state| state.keys(vec![other], "k3"));
    assert!(bench.providers.refresh().await);
    assert_eq!(word(&bench.verify(&token).await), "A signature");
}

#[tokio::test]
async fn the_last_good_keys_stay_for_a_day() {
    let bench = Bench::new().await;
    assert!(bench.providers.refresh().await);
    bench.idp.change(|state| {
        state.fault("discovery", Some(Fault { status: 500, ..Fault::default() }));
        state.fault("jwks", Some(Fault { status: 500, ..Fault::default() }));
    });
    assert!(!bench.providers.refresh().await);
    let late = |hours: i64| {
        let now = crate::support::NOW + hours * 3600;
        json!({ "iat": now, "nbf": now, "exp": now + 3900 })
    };
    bench.clock.advance(23 * 3600);
    assert_eq!(bench.changed(bench.workload(), late(23)).await, "ok");
    bench.clock.advance(2 * 3600);
    assert_eq!(bench.changed(bench.workload(), late(25)).await, "T keys");
    assert!(!bench.providers.ready());
}

#[tokio::test]
async fn a_document_that_is_not_ours_is_no_document() {
    let bench = Bench::with(|entra| {
        entra.tenants = vec!["99999999-aaaa-4aaa-8aaa-000000000009".into()];
        entra.groups.clear();
    })
    .await;
    assert!(!bench.providers.refresh().await);
    assert_eq!(bench.idp.count("jwks"), 0);
    // `common` states the template, whose tokens could be anybody's.
    let idp = Idp::start(Options::default()).await.unwrap();
    let mut wrong = settings(&idp);
    wrong.entra.as_mut().unwrap().tenants = vec!["common".into()];
    assert!(Providers::new(wrong).is_err());
}

#[tokio::test]
async fn a_clock_that_is_off_by_less_than_the_skew_is_no_matter() {
    let bench = Bench::new().await;
    for (offset, expected) in [(59, "ok"), (-59, "ok"), (61, "A not_yet")] {
        let now = crate::support::NOW + offset;
        let claims = json!({ "iat": now, "nbf": now, "exp": now + 3900 });
        assert_eq!(bench.changed(bench.workload(), claims).await, expected, "{offset}");
    }
    assert!(bench.issuer().contains(TENANT));
}

#[tokio::test]
async fn concurrent_logins_share_one_fetch() {
    let bench = Bench::new().await;
    let claims = bench.workload();
    let crowd = futures_util::future::join_all((0..50).map(|_| bench.outcome(&claims))).await;
    assert!(crowd.iter().all(|outcome| outcome == "ok"));
    assert_eq!((bench.idp.count("discovery"), bench.idp.count("jwks")), (1, 1));
}
