use super::*;

fn settings(url: &str) -> TargetSettings<'_> {
    TargetSettings {
        kind: "mysql",
        url,
        credential: None,
        tls: verbatim_wire::TargetTls::default(),
        connect_timeout: Duration::from_secs(10),
        options: &(),
    }
}

#[test]
fn a_url_is_read_with_its_defaults() {
    let target = MysqlTarget::parse(settings("mysql://app@db.internal/orders")).unwrap();
    assert_eq!(
        (target.display(), target.sslmode),
        ("db.internal:3306/orders".to_owned(), SslMode::VerifyFull)
    );
    assert_eq!(target.schema(None).unwrap(), "orders");
    assert_eq!(target.schema(Some("other".into())).unwrap(), "other");
    let local = MysqlTarget::parse(settings("mariadb://app@[::1]:3307")).unwrap();
    assert_eq!((local.display(), local.sslmode), ("[::1]:3307".to_owned(), SslMode::Disable));
    assert_eq!(local.schema(None), None);
    assert_eq!(MysqlTarget::parse(settings("mysql://db.internal/x")).unwrap_err(), InvalidTarget::User);
    assert_eq!(MysqlTarget::parse(settings("mysql://app:secret@db/x")).unwrap_err(), InvalidTarget::Password);
}

#[test]
fn nothing_of_a_credential_is_in_debug() {
    let mut settings = settings("mysql://app@db.internal/orders");
    settings.credential = Some(SecretString::from("target-secret"));
    let target = MysqlTarget::parse(settings).unwrap();
    assert!(!format!("{target:?}").contains("target-secret"));
}
