//! What the configuration says about who may do what: plain data, swapped as a whole on reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use verbatim_core::{
    AuthorizedBy, ConnectionName, Identity, IdentityKind, Principal, PrincipalKind, RecordMode,
};

/// All of it.
pub struct Policy {
    /// The connections by name.
    pub connections: HashMap<ConnectionName, Arc<Connection>>,
    /// How long a session may outlive its token.
    pub grace: Duration,
    /// How often groups and accounts of open sessions are looked up again.
    pub recheck: Duration,
    /// How many sessions may be open at once.
    pub sessions_max: usize,
}

/// A configured connection, as far as the stack is concerned.
pub struct Connection {
    /// Its name.
    pub name: ConnectionName,
    /// Its type.
    pub protocol: &'static str,
    /// The target for people: `host:port[/database]`, for HTTP the URL.
    pub target: String,
    /// Who is let in; the first entry that matches is what authorizes.
    pub access: Vec<Principal>,
    /// Which kinds of identity.
    pub kinds: Vec<IdentityKind>,
    /// How much is recorded.
    pub record: RecordMode,
}

impl Connection {
    /// The first entry of `access` that this identity is, or why none is.
    ///
    /// # Errors
    /// The refusal's code and reason.
    pub fn authorize(&self, identity: &dyn Identity) -> Result<AuthorizedBy, (&'static str, String)> {
        if !self.kinds.contains(&identity.kind()) {
            let kind = identity.kind().as_str();
            return Err(("kind", format!("{} lets in no identity of kind {kind}", self.name)));
        }
        let matched = self.access.iter().find_map(|entry| identity.holds(entry).map(|held| (entry, held)));
        let Some((entry, held)) = matched else {
            let wanted: Vec<String> = self.access.iter().map(ToString::to_string).collect();
            let wanted = if wanted.is_empty() { "nobody".to_owned() } else { wanted.join(", ") };
            return Err((
                "no_group",
                format!("{} lets in {wanted}; this identity is none of them", self.name),
            ));
        };
        let by_id =
            matches!(entry.kind, PrincipalKind::User | PrincipalKind::Workload | PrincipalKind::Agent);
        Ok(AuthorizedBy {
            kind: entry.kind.as_str(),
            name: if by_id { identity.name().map(str::to_owned) } else { Some(entry.name()) },
            id: held.id,
            source: held.source,
        })
    }
}
