use verbatim_core::{CloseReason, OnBehalfOf, Timestamp};
use verbatim_store::{Filters, StoreError};

use crate::record::{AGENT, Record, Somebody};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn each_filter_lets_pass_what_it_says() {
    let record = Record::new();
    let anna = OnBehalfOf { object_id: "cccc".to_owned(), name: Some("Anna".to_owned()) };
    let other = Somebody { object_id: "bbbb", name: "other-agent", person: Some(anna) };

    let mut first = record.open_as("customer-db", &AGENT, "billing-agents", Some(TRACE));
    first.query(b"SELECT 'first'");
    let first = first.close(CloseReason::Client).to_string();
    let between = Timestamp::now();
    let mut second = record.open_as("orders", &other, "order-agents", None);
    second.refused(b"SELECT 'second'");
    let second_id = second.id.to_string();
    let refused = record.refuse(None).to_string();
    let index = record.index();

    let list = |filters: Filters| -> Vec<String> {
        let sessions = index.list(&filters).unwrap().sessions;
        sessions.into_iter().map(|session| session.id).collect()
    };
    let all = Filters::default();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(list(all.clone()), [refused.as_str(), &second_id, &first]);
    assert_eq!(list(Filters { limit: Some(2), ..all.clone() }), [refused.as_str(), &second_id]);
    assert_eq!(list(Filters { connection: text("orders"), ..all.clone() }), [second_id.as_str()]);
    for identity in ["bbbb", "other-agent", "Other-Agent", "anna", "cccc"] {
        assert_eq!(
            list(Filters { identity: text(identity), ..all.clone() }),
            [second_id.as_str()],
            "{identity}"
        );
    }
    for group in ["billing-agents", "id-of-billing-agents"] {
        assert_eq!(list(Filters { group: text(group), ..all.clone() }), [first.as_str()], "{group}");
    }
    assert_eq!(list(Filters { trace: text(TRACE), ..all.clone() }), [first.as_str()]);
    assert_eq!(list(Filters { open: true, ..all.clone() }), [second_id.as_str()]);
    assert_eq!(list(Filters { refused: true, ..all.clone() }), [refused.as_str(), &second_id]);
    assert_eq!(list(Filters { since: Some(between), ..all.clone() }), [refused.as_str(), &second_id]);
    assert_eq!(list(Filters { until: Some(between), ..all.clone() }), [first.as_str()]);
    assert_eq!(list(Filters { masked: true, ..all.clone() }), [""; 0]);
    assert_eq!(list(Filters { approved: true, ..all.clone() }), [""; 0]);
    assert_eq!(
        list(Filters { connection: text("orders"), open: true, refused: true, ..all.clone() }).len(),
        1
    );

    let search = |filters: Filters| index.search("select", &filters).unwrap().matches.len();
    assert_eq!(search(all.clone()), 2);
    assert_eq!(search(Filters { refused: true, ..all.clone() }), 1);
    assert_eq!(search(Filters { trace: text(TRACE), ..all.clone() }), 1);
    assert_eq!(search(Filters { until: Some(between), ..all.clone() }), 1);
    assert_eq!(search(Filters { identity: text("nobody"), ..all }), 0);
}

#[test]
fn the_beginning_of_an_id_will_do_if_it_is_unique() {
    let record = Record::new();
    let first = record.open().close(CloseReason::Client).to_string();
    let second = record.open().close(CloseReason::Client).to_string();
    let index = record.index();
    let common: String =
        first.chars().zip(second.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let unique: String = first.chars().take(common.len() + 1).collect();

    assert_eq!(index.session(&unique).unwrap().id, first);
    assert_eq!(index.session(&unique.to_uppercase()).unwrap().id, first);
    match index.session(&common) {
        Err(StoreError::Ambiguous { ids, .. }) => {
            let mut both = [first, second];
            both.sort();
            assert_eq!(ids, both);
        }
        other => panic!("{other:?}"),
    }
    for wrong in ["", "ffffffff", "not an id", "%", "0' OR 1"] {
        assert!(matches!(index.show(wrong), Err(StoreError::NotFound(_))), "{wrong}");
    }
}

#[test]
fn what_one_trace_did_is_told_across_sessions_in_the_order_of_the_record() {
    let record = Record::new();
    let mut first = record.open_as("customer-db", &AGENT, "billing-agents", Some(TRACE));
    let mut other = record.open_as("orders", &AGENT, "billing-agents", None);
    let mut second = record.open_as("orders", &AGENT, "billing-agents", Some(TRACE));
    first.query(b"SELECT 1");
    other.query(b"SELECT 'of no trace'");
    second.query(b"SELECT 2");
    first.query(b"SELECT 3");
    let index = record.index();

    let filters = Filters { trace: Some(TRACE.to_owned()), limit: Some(10), ..Filters::default() };
    let mut document = Vec::new();
    index.write_list(&filters, &mut document).unwrap();
    let document: verbatim_store::SessionsDocument = serde_json::from_slice(&document).unwrap();
    assert_eq!(document.sessions.len(), 2);
    let told: Vec<_> = document
        .matches
        .iter()
        .map(|found| (found.session.connection.as_deref().unwrap(), found.operation.text.as_deref().unwrap()))
        .collect();
    assert_eq!(told, [("customer-db", "SELECT 1"), ("orders", "SELECT 2"), ("customer-db", "SELECT 3")]);
}
