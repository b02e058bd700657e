mod hostile;
mod middle;
mod real;

use super::*;

const CREDENTIAL: &str = "a-secret-of-the-gateway";

fn settings(credential: Option<&str>) -> TargetSettings {
    TargetSettings {
        credential: credential.map(|credential| credential.to_owned().into()),
        connect_timeout: Duration::from_secs(60),
        ..TargetSettings::default()
    }
}

fn target(port: u16, query: &str) -> Target {
    let url = format!("postgres://app@127.0.0.1:{port}/postgres{query}");
    Target::parse(&url, settings(Some(CREDENTIAL))).unwrap()
}

fn parameters(pairs: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
    pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
}

/// Neither what is shown of an error nor what is passed on holds the credential.
fn tells_nothing(error: &TargetError) {
    for shown in [format!("{error}"), format!("{error:?}")] {
        assert!(!shown.contains(CREDENTIAL), "{shown}");
    }
    if let TargetError::Refused { raw: Some(raw), .. } = error {
        assert!(memchr::memmem::find(raw, CREDENTIAL.as_bytes()).is_none());
    }
}
