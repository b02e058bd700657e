//! A verified Entra identity and what it matches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use verbatim_core::{
    AuthorizationSource, Held, Identity, IdentityKind, OnBehalfOf, Principal, PrincipalKind, Timestamp,
    Value, Visitor,
};

use crate::claims::Claims;
use crate::settings::SettingsError;
use crate::token::guid;

/// A group that the configuration gave a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedGroup {
    pub(crate) name: String,
    pub(crate) tenant: String,
    pub(crate) id: String,
}

/// The groups that the configuration names, and the tenants it knows.
#[derive(Debug, Default)]
pub(crate) struct GroupNames {
    groups: Vec<NamedGroup>,
    by_name: HashMap<String, usize>,
    /// With several tenants a bare object id means nobody.
    several_tenants: bool,
}

impl GroupNames {
    /// Of all groups those that are mentioned anywhere; `tenants` in lower case.
    pub(crate) fn new(
        tenants: &[String],
        groups: &[(String, String)],
        mentioned: &[String],
    ) -> Result<Self, SettingsError> {
        let mut names = Self { several_tenants: tenants.len() > 1, ..Self::default() };
        for (name, configured) in groups {
            let wrong =
                |expected| SettingsError::Group { name: name.clone(), id: configured.clone(), expected };
            let (tenant, id) = match (configured.split_once('/'), tenants) {
                (Some((tenant, id)), _) => (guid(tenant), guid(id)),
                (None, [only]) => (Some(only.clone()), guid(configured)),
                (None, _) => return Err(wrong("TENANT/OID, which several tenants need")),
            };
            let (Some(tenant), Some(id)) = (tenant, id) else { return Err(wrong("an object id (a GUID)")) };
            if !tenants.contains(&tenant) {
                return Err(wrong("in one of the configured tenants"));
            }
            let qualified = |mention: &String| {
                mention.split_once('/').is_some_and(|(before, after)| after == name && guid(before).is_some())
            };
            if mentioned.contains(name) || mentioned.iter().any(qualified) {
                names.by_name.insert(name.clone(), names.groups.len());
                names.groups.push(NamedGroup { name: name.clone(), tenant, id });
            }
        }
        Ok(names)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&NamedGroup> {
        self.groups.get(*self.by_name.get(name)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &NamedGroup> {
        self.groups.iter()
    }

    /// The ids of one tenant's groups, each once.
    pub(crate) fn ids(&self, tenant: &str) -> Vec<String> {
        let mut ids: Vec<String> =
            self.groups.iter().filter(|group| group.tenant == tenant).map(|group| group.id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// The groups of an identity, as far as the configuration names them.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) ids: Arc<HashSet<String>>,
    pub(crate) source: AuthorizationSource,
    pub(crate) at: Timestamp,
}

/// Whom a token of Entra proved.
#[derive(Debug, Clone)]
pub(crate) struct EntraIdentity {
    pub(crate) claims: Arc<Claims>,
    pub(crate) names: Arc<GroupNames>,
    pub(crate) membership: Membership,
}

impl EntraIdentity {
    fn holds_group(&self, name: &str) -> Option<Held> {
        let group = self.names.named(name)?;
        let member = group.tenant == self.claims.tenant && self.membership.ids.contains(&group.id);
        member.then(|| Held { id: Some(group.id.clone()), source: self.membership.source })
    }
}

impl Identity for EntraIdentity {
    fn provider(&self) -> &str {
        "entra"
    }

    fn tenant(&self) -> &str {
        &self.claims.tenant
    }

    fn object_id(&self) -> &str {
        &self.claims.object_id
    }

    fn kind(&self) -> IdentityKind {
        self.claims.kind
    }

    fn name(&self) -> Option<&str> {
        self.claims.name.as_deref()
    }

    fn app_id(&self) -> Option<&str> {
        Some(&self.claims.app_id)
    }

    fn on_behalf_of(&self) -> Option<&OnBehalfOf> {
        self.claims.on_behalf_of.as_ref()
    }

    fn token_id(&self) -> Option<&str> {
        self.claims.token_id.as_deref()
    }

    fn expires_at(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.claims.expires)
    }

    fn holds(&self, principal: &Principal) -> Option<Held> {
        let ours = match &principal.qualifier {
            Some(qualifier) => qualifier.eq_ignore_ascii_case(&self.claims.tenant),
            None => true,
        };
        if !ours {
            return None;
        }
        let kind = match principal.kind {
            PrincipalKind::Group => return self.holds_group(&principal.value),
            PrincipalKind::Role => {
                let held = self.claims.roles.contains(&principal.value);
                return held.then_some(Held { id: None, source: AuthorizationSource::Token });
            }
            PrincipalKind::User => IdentityKind::User,
            PrincipalKind::Workload => IdentityKind::Workload,
            PrincipalKind::Agent => IdentityKind::Agent,
        };
        let meant = principal.qualifier.is_some() || !self.names.several_tenants;
        let same = kind == self.kind() && principal.value.eq_ignore_ascii_case(self.object_id());
        (meant && same)
            .then(|| Held { id: Some(self.claims.object_id.clone()), source: AuthorizationSource::Config })
    }

    fn answers_to(&self, claimed_user: &str) -> bool {
        answers(claimed_user, &[&self.claims.subject, &self.claims.object_id], &self.claims.logins)
    }

    fn details(&self, visitor: &mut dyn Visitor) {
        for (name, value) in &self.claims.recorded {
            visitor.field(name, Value::Text(value));
        }
        // Microsoft says that an agent's object id is its app id, and shows samples where it is not.
        if self.claims.kind == IdentityKind::Agent && self.claims.on_behalf_of.is_none() {
            visitor.field("oid_is_app", Value::Bool(self.claims.object_id == self.claims.app_id));
        }
        let held: Vec<Value<'_>> = self
            .names
            .iter()
            .filter(|group| self.holds_group(&group.name).is_some())
            .map(|group| Value::Text(&group.name))
            .collect();
        visitor.field("groups", Value::List(&held));
        visitor.field("groups_source", Value::Text(self.membership.source.as_str()));
        visitor.field("groups_at", Value::Time(self.membership.at));
        visitor.field("token_sha256_b64", Value::Bytes(&self.claims.sha256));
    }
}

/// Case 46: what looks like an object id must be one of `ids`, what looks like a principal name one of `logins` (lower
/// case); any other user name is as good as another.
pub(crate) fn answers(claimed: &str, ids: &[&str], logins: &[String]) -> bool {
    if guid(claimed).is_some() {
        return ids.iter().any(|id| id.eq_ignore_ascii_case(claimed));
    }
    if claimed.contains('@') {
        let claimed = claimed.to_lowercase();
        return logins.contains(&claimed);
    }
    true
}
