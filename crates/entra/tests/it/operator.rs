//! What operators see: mistakes in settings, checks, and what a sample token lacks.

use serde_json::{Value, json};
use verbatim_core::Token;
use verbatim_entra::{Providers, SettingsError};
use verbatim_testkit::idp::{Fault, Idp, Options};

use crate::support::{Bench, GROUP_1, OTHER_TENANT, change, settings};

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let idp = Idp::start(Options::default()).await.unwrap();
    let with = |change: &dyn Fn(&mut verbatim_entra::Entra)| {
        let mut settings = settings(&idp);
        change(settings.entra.as_mut().unwrap());
        Providers::new(settings).err()
    };
    assert!(with(&|_| {}).is_none());
    let tenant = with(&|entra| entra.tenants = vec!["organizations".into()]);
    assert!(matches!(tenant, Some(SettingsError::Tenant { .. })));
    assert!(matches!(with(&|entra| entra.audiences.clear()), Some(SettingsError::Audiences { .. })));
    let group = with(&|entra| entra.groups = vec![("billing-agents".into(), "billing".into())]);
    assert!(matches!(group, Some(SettingsError::Group { .. })));
    let bare = with(&|entra| entra.tenants.push(OTHER_TENANT.into()));
    assert!(matches!(bare, Some(SettingsError::Group { .. })));
    let foreign = with(&|entra| entra.groups = vec![("x".into(), format!("{OTHER_TENANT}/{GROUP_1}"))]);
    assert!(matches!(foreign, Some(SettingsError::Group { .. })));
    let plain = with(&|entra| entra.authority = Some("http://login.example".into()));
    assert!(matches!(plain, Some(SettingsError::Url { .. })));
    let graph = with(&|entra| entra.graph.as_mut().unwrap().endpoint = Some("http://graph.example".into()));
    assert!(matches!(graph, Some(SettingsError::Url { .. })));
}

#[tokio::test]
async fn a_check_reaches_everything() {
    let bench =
        Bench::with(|entra| entra.groups.push(("privacy".into(), GROUP_1.replace("e001", "e0ff")))).await;
    let results = bench.providers.check().await;
    let words: Vec<String> =
        results.iter().map(|result| format!("{} {}", result.what, result.outcome.is_ok())).collect();
    let issuer = bench.issuer();
    let tenant = crate::support::TENANT;
    // `privacy` is mentioned nowhere, so it is not asked for.
    let expected = [
        format!("keys of {issuer} true"),
        format!("Graph for tenant {tenant} true"),
        "group billing-agents true".to_owned(),
        "group dba-oncall true".to_owned(),
    ];
    assert_eq!(words, expected);
    bench.idp.change(|state| state.fault("token", Some(Fault { status: 400, ..Fault::default() })));
    bench.idp.change(|state| state.fault("jwks", Some(Fault { status: 500, ..Fault::default() })));
    let settings = settings(&bench.idp);
    let fresh = Bench::on(bench.idp, settings);
    assert!(fresh.providers.check().await.iter().all(|result| result.outcome.is_err()));
}

#[tokio::test]
async fn what_a_sample_token_lacks() {
    let bench = Bench::new().await;
    let lacking = |claims: serde_json::Map<String, Value>| {
        let token = bench.idp.mint(&Value::Object(claims)).unwrap();
        bench.providers.lacking(&Token::new(token.into_bytes()))
    };
    assert_eq!(lacking(bench.workload()), Vec::<String>::new());
    assert_eq!(lacking(bench.person()), Vec::<String>::new());
    let cases = [
        (json!({ "ver": "1.0" }), "requestedAccessTokenVersion"),
        (json!({ "idtyp": null }), "include_user_token"),
        (json!({ "groups": null }), "groupMembershipClaims"),
        (json!({ "aud": "api://other" }), "api://other"),
        (json!({ "exp": 1_790_000_000 + 40 * 3600 }), "max_lifetime"),
        (json!({ "oid": null }), "profile"),
        (json!({ "iss": "https://login.microsoftonline.com/x/v2.0" }), "configured are"),
    ];
    for (changes, expected) in cases {
        let said = lacking(change(bench.person(), changes.clone()));
        assert!(said.len() == 1 && said[0].contains(expected), "{changes}: {said:?}");
    }
    let said = lacking(change(bench.workload(), json!({ "idtyp": null })));
    assert!(said[0].contains("idtyp"), "{said:?}");
    assert_eq!(bench.providers.lacking(&Token::new(b"nonsense".to_vec())).len(), 1);
    assert_eq!(bench.idp.count("jwks"), 0);
}
