//! Whose groups count, where they come from, and what happens when they change or cannot be learnt.

use std::sync::Arc;

use serde_json::{Value, json};
use verbatim_core::{AuthorizationSource, AuthorizationSource::Graph, Identity, IdentityKind, Visitor};
use verbatim_testkit::idp::Fault;

use crate::support::{
    AGENT, AGENT_USER, Bench, GROUP_1, GROUP_2, OTHER_TENANT, PERSON, TENANT, WORKLOAD, change, held,
    principal, word,
};

const TOKEN: AuthorizationSource = AuthorizationSource::Token;

#[tokio::test]
async fn a_workload_is_looked_up_as_a_service_principal() {
    let bench = Bench::new().await;
    let identity = bench.identity(bench.workload()).await;
    assert_eq!(identity.kind(), IdentityKind::Workload);
    assert_eq!(identity.object_id(), WORKLOAD);
    assert_eq!(identity.provider(), "entra");
    assert_eq!(identity.tenant(), TENANT);
    assert_eq!(held(&identity), [("billing-agents", Graph)]);
    let by_role = identity.holds(&principal("role:Connection.Use")).unwrap();
    assert_eq!((by_role.id, by_role.source), (None, TOKEN));
    let by_group = identity.holds(&principal("group:billing-agents")).unwrap();
    assert_eq!(by_group.id.as_deref(), Some(GROUP_1));
    let by_id = identity.holds(&principal(&format!("workload:{WORKLOAD}"))).unwrap();
    assert_eq!((by_id.id.as_deref(), by_id.source), (Some(WORKLOAD), AuthorizationSource::Config));
}

#[tokio::test]
async fn a_persons_groups_are_the_tokens() {
    let bench = Bench::new().await;
    let identity = bench.identity(bench.person()).await;
    assert_eq!(identity.kind(), IdentityKind::User);
    assert_eq!(identity.name(), Some("Ada Example"));
    assert_eq!(identity.on_behalf_of(), None);
    assert_eq!(held(&identity), [("billing-agents", TOKEN), ("dba-oncall", TOKEN)]);
    assert_eq!(bench.idp.count("graph"), 0);
    // Neither groups nor marker: a member of none, and nobody is asked.
    let identity = bench.identity(change(bench.person(), json!({ "groups": null }))).await;
    assert_eq!(held(&identity), []);
    assert_eq!(bench.idp.count("graph"), 0);
}

#[tokio::test]
async fn an_agent_on_its_own() {
    let bench = Bench::new().await;
    let identity = bench.identity(bench.agent()).await;
    assert_eq!((identity.kind(), identity.object_id()), (IdentityKind::Agent, AGENT));
    assert_eq!(held(&identity), [("billing-agents", Graph)]);
    // The blueprint alone makes an agent, and so does either facet.
    for only in ["xms_par_app_azp", "xms_act_fct", "xms_sub_fct"] {
        let mut claims = bench.agent();
        for name in ["xms_par_app_azp", "xms_act_fct", "xms_sub_fct"] {
            if name != only {
                claims.remove(name);
            }
        }
        assert_eq!(bench.identity(claims).await.kind(), IdentityKind::Agent, "{only}");
    }
}

#[tokio::test]
async fn an_agent_for_a_person_has_the_persons_groups() {
    let bench = Bench::new().await;
    let identity = bench.identity(bench.claims("agent-for-person")).await;
    assert_eq!((identity.kind(), identity.object_id()), (IdentityKind::Agent, AGENT));
    let person = identity.on_behalf_of().unwrap();
    assert_eq!((person.object_id.as_str(), person.name.as_deref()), (PERSON, Some("Ada Example")));
    assert_eq!(held(&identity), [("billing-agents", TOKEN), ("dba-oncall", TOKEN)]);
    assert!(identity.holds(&principal(&format!("agent:{AGENT}"))).is_some());
    assert_eq!(identity.holds(&principal(&format!("user:{PERSON}"))), None);
    assert_eq!(identity.holds(&principal(&format!("agent:{PERSON}"))), None);
}

#[tokio::test]
async fn an_agents_own_user_account() {
    let bench = Bench::new().await;
    let identity = bench.identity(bench.claims("agent-user")).await;
    assert_eq!((identity.kind(), identity.object_id()), (IdentityKind::Agent, AGENT_USER));
    assert_eq!(identity.on_behalf_of(), None);
    assert_eq!(held(&identity), [("billing-agents", TOKEN)]);
    let overage = json!({ "groups": null, "hasgroups": true });
    let identity = bench.identity(change(bench.claims("agent-user"), overage)).await;
    assert_eq!(held(&identity), [("billing-agents", Graph)]);
}

#[tokio::test]
async fn without_graph_there_are_the_tokens_groups_and_roles() {
    let bench = Bench::with(|entra| entra.graph = None).await;
    assert_eq!(held(&bench.identity(bench.workload()).await), []);
    let signed = change(bench.workload(), json!({ "groups": [GROUP_1] }));
    assert_eq!(held(&bench.identity(signed).await), [("billing-agents", TOKEN)]);
    assert_eq!(bench.changed(bench.person(), json!({ "hasgroups": true })).await, "T groups");
    let identity = bench.identity(bench.person()).await;
    let again = bench.recheck(&identity).await.unwrap();
    assert_eq!(held(&again), held(&identity));
}

#[tokio::test]
async fn one_answer_serves_for_five_minutes_and_a_crowd() {
    let bench = Bench::new().await;
    let claims = Value::Object(bench.workload());
    let token = bench.idp.mint(&claims).unwrap();
    let crowd = futures_util::future::join_all((0..50).map(|_| bench.verify(&token))).await;
    assert!(crowd.iter().all(|result| word(result) == "ok"));
    assert_eq!(bench.idp.count("check_member_groups"), 1);
    assert_eq!(bench.idp.count("token"), 1);
    bench.idp.change(|state| state.subject(TENANT, WORKLOAD).groups.clear());
    bench.clock.advance(299);
    assert_eq!(held(&bench.verify(&token).await.unwrap()), [("billing-agents", Graph)]);
    bench.clock.advance(2);
    assert_eq!(held(&bench.verify(&token).await.unwrap()), []);
    // That there is none is remembered too.
    assert_eq!(held(&bench.verify(&token).await.unwrap()), []);
    assert_eq!(bench.idp.count("check_member_groups"), 2);
}

#[tokio::test]
async fn after_five_minutes_a_failure_is_no_stale_grant() {
    let bench = Bench::new().await;
    let token = bench.idp.mint(&Value::Object(bench.workload())).unwrap();
    assert_eq!(word(&bench.verify(&token).await), "ok");
    bench.idp.change(|state| state.fault("graph", Some(Fault { status: 403, ..Fault::default() })));
    bench.clock.advance(301);
    assert_eq!(word(&bench.verify(&token).await), "T groups");
    bench.idp.change(|state| state.fault("graph", None));
    bench.clock.advance(6);
    assert_eq!(word(&bench.verify(&token).await), "ok");
}

#[tokio::test]
async fn a_short_throttling_is_waited_for() {
    let bench = Bench::new().await;
    let fault = Fault { status: 429, retry_after: Some(0), times: Some(1), ..Fault::default() };
    bench.idp.change(|state| state.fault("graph", Some(fault)));
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    assert_eq!(bench.idp.count("graph"), 2);
}

#[tokio::test]
async fn a_token_for_graph_that_is_refused_is_renewed_once() {
    let bench = Bench::new().await;
    let fault = Fault { status: 401, times: Some(1), ..Fault::default() };
    bench.idp.change(|state| state.fault("graph", Some(fault)));
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    assert_eq!(bench.idp.count("token"), 2);
    let wrong = Bench::with(|entra| {
        entra.graph.as_mut().unwrap().client_secret = "wrong".into();
    })
    .await;
    assert_eq!(wrong.outcome(&wrong.workload()).await, "T groups");
    let refused = wrong.verify(&wrong.idp.mint(&Value::Object(wrong.workload())).unwrap()).await.unwrap_err();
    assert!(!refused.reason.contains("wrong"), "{}", refused.reason);
}

fn many(count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("team-{n}"), format!("f0f0f0f0-0000-4000-8000-{n:012}"))).collect()
}

#[tokio::test]
async fn up_to_forty_groups_are_asked_for_in_twenties_and_more_as_a_list() {
    for (count, checks, lists) in [(20, 1, 0), (40, 2, 0), (41, 0, 1)] {
        let bench = Bench::with_settings(|settings| {
            settings.entra.as_mut().unwrap().groups = many(count);
            settings.common.named_groups = many(count).into_iter().map(|(name, _)| name).collect();
        })
        .await;
        let last = many(count).pop().unwrap();
        bench.idp.change(|state| state.subject(TENANT, WORKLOAD).groups.insert(last.1));
        let identity = bench.identity(bench.workload()).await;
        assert!(identity.holds(&principal(&format!("group:{}", last.0))).is_some());
        assert_eq!(identity.holds(&principal("group:team-0")), None);
        assert_eq!(bench.idp.count("check_member_groups"), checks, "{count}");
        assert_eq!(bench.idp.count("get_member_groups"), lists, "{count}");
    }
}

#[tokio::test]
async fn a_list_that_is_too_long_is_asked_for_in_pieces() {
    let bench = Bench::with_settings(|settings| {
        settings.entra.as_mut().unwrap().groups = many(41);
        settings.common.named_groups = many(41).into_iter().map(|(name, _)| name).collect();
    })
    .await;
    bench.idp.change(|state| {
        let groups = &mut state.subject(TENANT, WORKLOAD).groups;
        groups.extend((0..11_001).map(|n| format!("f0f0f0f0-0000-4000-8000-{n:012}")));
    });
    let identity = bench.identity(bench.workload()).await;
    assert!(identity.holds(&principal("group:team-40")).is_some());
    assert_eq!(bench.idp.count("check_member_groups"), 3);
}

#[tokio::test]
async fn groups_that_nobody_mentions_are_not_asked_for() {
    let bench = Bench::with_settings(|settings| settings.common.named_groups.clear()).await;
    assert_eq!(held(&bench.identity(bench.workload()).await), []);
    assert_eq!(bench.idp.count("graph"), 0);
}

#[tokio::test]
async fn looking_again_sees_what_changed() {
    let bench = Bench::new().await;
    let clients = [(AGENT, AGENT), ("agent-for-person", PERSON), ("agent-user", AGENT_USER)];
    for (client, whose) in clients {
        let identity = bench.identity(bench.claims(client)).await;
        let groups = [GROUP_2.to_owned()].into();
        bench.idp.change(|state| state.subject(TENANT, whose).groups = groups);
        let again = bench.recheck(&identity).await.unwrap();
        assert_eq!(held(&again), [("dba-oncall", Graph)], "{client}");
        assert_eq!(again.object_id(), identity.object_id());
        // What was learnt anew can be looked at again.
        assert_eq!(word(&bench.recheck(&again).await), "ok");
    }
}

#[tokio::test]
async fn looking_again_ends_what_is_disabled_or_gone() {
    let bench = Bench::new().await;
    // An agent that acts for a person ends with either of them.
    for (client, whose) in [
        (AGENT, AGENT),
        ("agent-for-person", PERSON),
        ("agent-for-person", AGENT),
        ("agent-user", AGENT_USER),
    ] {
        let identity = bench.identity(bench.claims(client)).await;
        bench.idp.change(|state| state.subject(TENANT, whose).disabled = true);
        assert_eq!(word(&bench.recheck(&identity).await), "A disabled", "{client} {whose}");
        bench.idp.change(|state| state.subject(TENANT, whose).disabled = false);
        bench.idp.change(|state| state.subject(TENANT, whose).gone = true);
        let refused = bench.recheck(&identity).await;
        assert_eq!(word(&refused), "A subject_gone", "{client} {whose}");
        assert_eq!(refused.unwrap_err().identity.unwrap().object_id(), identity.object_id());
        bench.idp.change(|state| state.subject(TENANT, whose).gone = false);
        assert_eq!(word(&bench.recheck(&identity).await), "ok");
    }
    let identity = bench.identity(bench.workload()).await;
    bench.idp.change(|state| state.fault("graph", Some(Fault { status: 403, ..Fault::default() })));
    assert_eq!(word(&bench.recheck(&identity).await), "T groups");
}

#[tokio::test]
async fn with_several_tenants_a_bare_id_means_nobody() {
    let bench = Bench::with(|entra| {
        entra.tenants.push(OTHER_TENANT.to_uppercase());
        entra.groups = vec![
            ("billing-agents".into(), format!("{TENANT}/{GROUP_1}")),
            ("dba-oncall".into(), format!("{OTHER_TENANT}/{GROUP_2}")),
        ];
    })
    .await;
    let identity = bench.identity(bench.workload()).await;
    assert_eq!(held(&identity), [("billing-agents", Graph)]);
    assert_eq!(identity.holds(&principal(&format!("workload:{WORKLOAD}"))), None);
    assert!(identity.holds(&principal(&format!("workload:{TENANT}/{WORKLOAD}"))).is_some());
    assert_eq!(identity.holds(&principal(&format!("workload:{OTHER_TENANT}/{WORKLOAD}"))), None);
    assert!(identity.holds(&principal(&format!("group:{TENANT}/billing-agents"))).is_some());
    assert_eq!(identity.holds(&principal("group:ci/billing-agents")), None);
    let other = bench.identity(bench.claims("b5b5b5b5-0000-4000-8000-00000000b005")).await;
    assert_eq!(other.tenant(), OTHER_TENANT);
    assert_eq!(held(&other), []);
}

#[derive(Default)]
struct Seen(Vec<String>);

impl Visitor for Seen {
    fn field(&mut self, name: &str, value: verbatim_core::Value<'_>) {
        let value = match value {
            verbatim_core::Value::Text(text) => text.to_owned(),
            verbatim_core::Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            verbatim_core::Value::List(items) => format!("{} items", items.len()),
            verbatim_core::Value::Bool(flag) => flag.to_string(),
            _ => String::new(),
        };
        self.0.push(format!("{name}={value}"));
    }
}

#[tokio::test]
async fn the_entry_shows_what_is_known_of_an_agent_and_never_the_token() {
    let bench = Bench::new().await;
    let token = bench.idp.mint(&Value::Object(bench.agent())).unwrap();
    let identity: Arc<dyn Identity> = bench.verify(&token).await.unwrap();
    let mut seen = Seen::default();
    identity.details(&mut seen);
    for expected in [
        "idtyp=app",
        "azpacr=2",
        "act_fct=3 9 11",
        "sub_fct=9 3 11",
        "blueprint=d5d5d5d5-0000-4000-8000-00000000d005",
        "oid_is_app=true",
        "groups=1 items",
        "groups_source=graph",
        "token_sha256_b64=32 bytes",
    ] {
        assert!(seen.0.iter().any(|field| field == expected), "{expected} in {:?}", seen.0);
    }
    let signature = token.rsplit('.').next().unwrap();
    assert!(!format!("{identity:?} {:?}", seen.0).contains(signature));
}
