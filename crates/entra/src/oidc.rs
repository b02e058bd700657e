//! Other OpenID Connect issuers: their claims, and whom they prove.

use std::sync::Arc;
use std::time::Duration;

use verbatim_core::{
    AuthorizationSource, Held, Identity, IdentityKind, OnBehalfOf, Principal, PrincipalKind, Timestamp,
    Value, Visitor,
};

use crate::claims::{in_time, lifetime, seconds};
use crate::identity::answers;
use crate::json::{Json, Object};
use crate::refusal::{Refused, quoted};
use crate::settings::Oidc;

/// Whom a token of another issuer proved.
#[derive(Debug)]
pub(crate) struct OidcIdentity {
    provider: String,
    issuer: String,
    subject: String,
    kind: IdentityKind,
    name: Option<String>,
    app_id: Option<String>,
    token_id: Option<String>,
    not_before: i64,
    expires: i64,
    groups: Vec<String>,
    roles: Vec<String>,
    logins: Vec<String>,
    sha256: [u8; 32],
}

/// What holds for all issuers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) skew: Duration,
    pub(crate) max_lifetime: Duration,
    pub(crate) now: i64,
}

fn wrong(reason: impl Into<String>) -> Refused {
    Refused::not_authenticated("claims", reason)
}

impl OidcIdentity {
    pub(crate) fn read(
        payload: &Object,
        settings: &Oidc,
        limits: Limits,
        sha256: [u8; 32],
    ) -> Result<Self, Refused> {
        audience(payload, &settings.audiences)?;
        let expires = seconds(payload, "exp")?.ok_or_else(|| wrong("exp is missing"))?;
        let (nbf, iat) = (seconds(payload, "nbf")?, seconds(payload, "iat")?);
        let not_before = nbf.or(iat).unwrap_or(limits.now);
        in_time(not_before, expires, limits.now, limits.skew)?;
        lifetime(expires.saturating_sub(not_before), limits.max_lifetime)?;
        let subject = payload.text(&settings.subject_claim).filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| wrong(format!("{} is missing", settings.subject_claim)))?;
        let first = |names: &[&str]| names.iter().find_map(|name| payload.text(name)).map(str::to_owned);
        let logins = ["preferred_username", "email", "upn", "sub"];
        Ok(Self {
            provider: settings.name.clone(),
            issuer: settings.issuer.clone(),
            subject: subject.to_owned(),
            kind: settings.kind,
            name: first(&["name", "preferred_username", "email"]),
            app_id: first(&["azp", "client_id"]),
            token_id: first(&["jti", "uti"]),
            not_before,
            expires,
            groups: words(payload, settings.groups_claim.as_deref())?,
            roles: words(payload, settings.roles_claim.as_deref())?,
            logins: logins.iter().filter_map(|name| payload.text(name)).map(str::to_lowercase).collect(),
            sha256,
        })
    }

    pub(crate) fn current(&self, now: i64, skew: Duration) -> Result<(), Refused> {
        in_time(self.not_before, self.expires, now, skew)
    }
}

/// Many issuers state a list of audiences; one of them must be this gateway's.
fn audience(payload: &Object, audiences: &[String]) -> Result<(), Refused> {
    let stated: Vec<&str> = match payload.get("aud") {
        Some(Json::Text(audience)) => vec![audience],
        Some(list) => list.as_texts().ok_or_else(|| wrong("aud is neither text nor a list of texts"))?,
        None => return Err(wrong("aud is missing")),
    };
    if stated.iter().any(|stated| audiences.iter().any(|audience| audience == stated)) {
        return Ok(());
    }
    let first = stated.first().copied().unwrap_or_default();
    Err(Refused::not_authenticated("aud", format!("the token is for {}", quoted(first))))
}

/// The words of a claim: one text, or a list of texts. Its name is taken literally first, then as a path with dots.
fn words(payload: &Object, claim: Option<&str>) -> Result<Vec<String>, Refused> {
    let Some(claim) = claim else { return Ok(Vec::new()) };
    let nested = || {
        let (path, last) = claim.rsplit_once('.')?;
        let inner = path.split('.').try_fold(payload, |object, name| object.get(name)?.as_object())?;
        inner.get(last)
    };
    match payload.get(claim).or_else(nested) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Text(word)) => Ok(vec![word.clone()]),
        Some(list) => {
            let words = list.as_texts().ok_or_else(|| wrong(format!("{claim} holds more than texts")))?;
            Ok(words.into_iter().map(str::to_owned).collect())
        }
    }
}

impl Identity for OidcIdentity {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn tenant(&self) -> &str {
        &self.issuer
    }

    fn object_id(&self) -> &str {
        &self.subject
    }

    fn kind(&self) -> IdentityKind {
        self.kind
    }

    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn app_id(&self) -> Option<&str> {
        self.app_id.as_deref()
    }

    fn on_behalf_of(&self) -> Option<&OnBehalfOf> {
        None
    }

    fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    fn expires_at(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.expires)
    }

    fn holds(&self, principal: &Principal) -> Option<Held> {
        if principal.qualifier.as_deref() != Some(&self.provider) {
            return None;
        }
        let held = |source| Held { id: Some(principal.value.clone()), source };
        let kind = match principal.kind {
            PrincipalKind::Group => {
                let member = self.groups.contains(&principal.value);
                return member.then(|| held(AuthorizationSource::Token));
            }
            PrincipalKind::Role => {
                let has = self.roles.contains(&principal.value);
                return has.then_some(Held { id: None, source: AuthorizationSource::Token });
            }
            PrincipalKind::User => IdentityKind::User,
            PrincipalKind::Workload => IdentityKind::Workload,
            PrincipalKind::Agent => IdentityKind::Agent,
        };
        // A GUID in the configuration is in lower case already; other subjects are compared as they are.
        let same = principal.value == self.subject
            || crate::token::guid(&self.subject).is_some_and(|subject| subject == principal.value);
        (kind == self.kind && same).then(|| held(AuthorizationSource::Config))
    }

    fn answers_to(&self, claimed_user: &str) -> bool {
        answers(claimed_user, &[&self.subject], &self.logins)
    }

    fn details(&self, visitor: &mut dyn Visitor) {
        let groups: Vec<Value<'_>> = self.groups.iter().map(|group| Value::Text(group)).collect();
        visitor.field("groups", Value::List(&groups));
        visitor.field("groups_source", Value::Text(AuthorizationSource::Token.as_str()));
        visitor.field("token_sha256_b64", Value::Bytes(&self.sha256));
    }
}

/// An identity of another issuer has nothing that could be looked up again.
pub(crate) fn shared(identity: &Arc<OidcIdentity>) -> Arc<dyn Identity> {
    Arc::<OidcIdentity>::clone(identity)
}
