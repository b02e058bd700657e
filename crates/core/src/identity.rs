//! Who a verified token says this is, and what that lets it match.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{BoxFuture, Timestamp, Token};

/// What kind of subject an identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityKind {
    /// A person.
    User,
    /// An application or a managed identity.
    Workload,
    /// An AI agent: alone, for a person, or by a user account of its own.
    Agent,
}

impl IdentityKind {
    /// The word that configuration and record use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Workload => "workload",
            Self::Agent => "agent",
        }
    }
}

/// The person whom an agent acts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBehalfOf {
    /// The person's object id.
    pub object_id: String,
    /// The person's name, for display alone.
    pub name: Option<String>,
}

/// A verified identity. It answers for every group that the configuration names, not only for the one that let it in.
///
/// `Any`, so that a provider knows its own again when it is asked to look once more.
pub trait Identity: std::any::Any + Send + Sync + fmt::Debug {
    /// `entra`, or the configured name of another issuer.
    fn provider(&self) -> &str;
    /// The tenant's GUID, or the other issuer's URL.
    fn tenant(&self) -> &str;
    /// The subject's immutable id: for an agent that acts for a person, the agent's.
    fn object_id(&self) -> &str;
    /// Person, workload or agent.
    fn kind(&self) -> IdentityKind;
    /// A name for display; mutable at its source, trusted for nothing.
    fn name(&self) -> Option<&str>;
    /// The client application's id.
    fn app_id(&self) -> Option<&str>;
    /// The person whom an agent acts for.
    fn on_behalf_of(&self) -> Option<&OnBehalfOf>;
    /// The token's id (`uti`, `jti`).
    fn token_id(&self) -> Option<&str>;
    /// When the token ends, without grace or skew.
    fn expires_at(&self) -> Timestamp;
    /// Whether this identity is what `principal` names, and how that is known.
    fn holds(&self, principal: &Principal) -> Option<Held>;
    /// Whether a user name that the client claimed can be this identity's: false only for one that looks like an
    /// object id or a user principal name and isn't the token's.
    fn answers_to(&self, claimed_user: &str) -> bool;
    /// Further facts of this provider (agent blueprint, facets, authentication strength …) for the opening entry.
    fn details(&self, visitor: &mut dyn crate::Visitor);
}

/// How an identity matched a [`Principal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The group's or subject's id at the provider.
    pub id: Option<String>,
    /// Where that was learnt.
    pub source: AuthorizationSource,
}

/// Where it was learnt that an identity matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorizationSource {
    /// A claim of the token.
    Token,
    /// The provider's directory (Microsoft Graph).
    Graph,
    /// The configuration names the subject itself.
    Config,
    /// An access that was granted for a time.
    Grant,
}

impl AuthorizationSource {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Graph => "graph",
            Self::Config => "config",
            Self::Grant => "grant",
        }
    }
}

/// What let an identity in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedBy {
    /// `group`, `role`, `user`, `workload`, `agent` or `grant`.
    pub kind: &'static str,
    /// The name in the configuration (`billing-agents`, `ci/deployers`).
    pub name: Option<String>,
    /// The id at the provider.
    pub id: Option<String>,
    /// Where it was learnt.
    pub source: AuthorizationSource,
}

/// The form of a [`Principal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A group that the configuration maps to an id.
    Group,
    /// An app role.
    Role,
    /// A person, by object id.
    User,
    /// An application or managed identity, by object id.
    Workload,
    /// An agent, by object id.
    Agent,
}

impl PrincipalKind {
    /// The word before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Role => "role",
            Self::User => "user",
            Self::Workload => "workload",
            Self::Agent => "agent",
        }
    }
}

/// An entry of an `access` list: `group:NAME`, `role:VALUE`, `user:OID`, `workload:OID`, `agent:OID`.
///
/// What stands before a slash qualifies it: `group:ci/deployers` is the group of the issuer `ci`, `user:TENANT/OID`
/// the subject of that tenant. Without a qualifier it is Entra's, and never matches another issuer's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Which form.
    pub kind: PrincipalKind,
    /// The issuer's configured name, or a tenant.
    pub qualifier: Option<String>,
    /// The group's name, the role's value, or the object id (a GUID in lower case).
    pub value: String,
}

impl Principal {
    /// The name as configured, qualifier included, without the form before the colon.
    pub fn name(&self) -> String {
        match &self.qualifier {
            Some(qualifier) => format!("{qualifier}/{}", self.value),
            None => self.value.clone(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name())
    }
}

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (form, name) = text.split_once(':').ok_or(InvalidPrincipal)?;
        let kind = match form {
            "group" => PrincipalKind::Group,
            "role" => PrincipalKind::Role,
            "user" => PrincipalKind::User,
            "workload" => PrincipalKind::Workload,
            "agent" => PrincipalKind::Agent,
            _ => return Err(InvalidPrincipal),
        };
        let (qualifier, value) = match name.split_once('/') {
            Some((qualifier, value)) => (Some(qualifier), value),
            None => (None, name),
        };
        if value.is_empty() || qualifier.is_some_and(str::is_empty) {
            return Err(InvalidPrincipal);
        }
        // Object ids are compared without regard to case; roles and group names as written.
        let by_id = matches!(kind, PrincipalKind::User | PrincipalKind::Workload | PrincipalKind::Agent);
        let is_guid = value.len() == 36 && value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let value = if by_id && is_guid { value.to_ascii_lowercase() } else { value.to_owned() };
        Ok(Self { kind, qualifier: qualifier.map(str::to_owned), value })
    }
}

/// The text is no access entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected group:NAME, role:VALUE, user:OID, workload:OID or agent:OID")]
pub struct InvalidPrincipal;

/// What a provider concludes when it does not let a token pass (`entra.md` classes A, Z and T).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A: the token proves no identity.
    NotAuthenticated,
    /// Z: the identity is proved and not allowed.
    NotAllowed,
    /// T: it cannot be decided now; no key, no directory.
    Undecided,
}

/// Why a token did not pass.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct IdentityError {
    /// The class, which decides what the client is told.
    pub verdict: Verdict,
    /// A stable word for the record (`alg`, `signature`, `expired`, `no_group`, …).
    pub code: &'static str,
    /// For the record and the operator, never for the client; without any part of the token's secret.
    pub reason: String,
    /// The identity, where the token proved one all the same.
    pub identity: Option<Arc<dyn Identity>>,
}

/// Verifies tokens. The gateway puts one in front of the stack; the stack knows no provider.
pub trait IdentityProvider: Send + Sync {
    /// Verifies `token` and learns every group that the configuration names.
    fn verify<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>>;

    /// Looks up the groups and the account of an identity again, while its session is open.
    fn recheck<'a>(
        &'a self,
        identity: &'a Arc<dyn Identity>,
    ) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_parse_and_print() {
        for text in ["group:billing-agents", "group:ci/deployers", "role:Connection.Use"] {
            assert_eq!(text.parse::<Principal>().unwrap().to_string(), text);
        }
        let user: Principal = "user:C3C3C3C3-0000-4000-8000-00000000C003".parse().unwrap();
        assert_eq!(user.value, "c3c3c3c3-0000-4000-8000-00000000c003");
        for wrong in ["", "group", "group:", "team:x", "group:/x", "group:x/"] {
            assert_eq!(wrong.parse::<Principal>(), Err(InvalidPrincipal), "{wrong:?}");
        }
    }
}
