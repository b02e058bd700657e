//! What a provider has to know: plain values, checked once when [`Providers`](crate::Providers) are made.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use verbatim_core::IdentityKind;

/// Everything that the providers are made from.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Microsoft Entra, if it is used.
    pub entra: Option<Entra>,
    /// Other OpenID Connect issuers.
    pub oidc: Vec<Oidc>,
    /// What holds for all of them.
    pub common: Common,
}

/// What holds for every issuer.
#[derive(Debug, Clone)]
pub struct Common {
    /// How far the clocks may differ at login; 60 s.
    pub skew: Duration,
    /// The longest life of a token, from `nbf` to `exp`; 29 h.
    pub max_lifetime: Duration,
    /// The longest token in bytes; 65,535.
    pub token_limit: usize,
    /// Certificate authorities beside the system's.
    pub ca: Roots,
    /// The groups that the configuration mentions anywhere, as it writes them (`billing-agents`, `ci/deployers`). What is
    /// not here is never asked for.
    pub named_groups: Vec<String>,
    /// The longest a request to an issuer or directory may take; 5 s.
    pub timeout: Duration,
    /// The longest that a login waits for the directory, retries included; 10 s.
    pub graph_budget: Duration,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            skew: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(29 * 3600),
            token_limit: 65_535,
            ca: Roots::None,
            named_groups: Vec::new(),
            timeout: Duration::from_secs(5),
            graph_budget: Duration::from_secs(10),
        }
    }
}

/// Certificate authorities beside the system's.
#[derive(Debug, Clone, Default)]
pub enum Roots {
    /// None.
    #[default]
    None,
    /// Those of a PEM file.
    Pem(PathBuf),
    /// These, DER-encoded.
    Der(Vec<Vec<u8>>),
}

/// Which of Microsoft's clouds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cloud {
    /// The global one.
    #[default]
    Public,
    /// US Government.
    UsGov,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    /// Where people and applications log in, without a trailing slash.
    pub const fn login(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGov => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }

    /// The base of version 1 issuers, without a trailing slash.
    pub const fn sts(self) -> &'static str {
        match self {
            // The government's issuer has the same host as the global one.
            Self::Public | Self::UsGov => "https://sts.windows.net",
            Self::China => "https://sts.chinacloudapi.cn",
        }
    }

    /// Microsoft Graph.
    pub const fn graph(self) -> &'static str {
        match self {
            Self::Public => "https://graph.microsoft.com/v1.0",
            Self::UsGov => "https://graph.microsoft.us/v1.0",
            Self::China => "https://microsoftgraph.chinacloudapi.cn/v1.0",
        }
    }
}

/// Microsoft Entra.
#[derive(Debug, Clone, Default)]
pub struct Entra {
    /// Tenant ids (GUIDs).
    pub tenants: Vec<String>,
    /// What `aud` may be, compared byte for byte.
    pub audiences: Vec<String>,
    /// The cloud whose hosts are used.
    pub cloud: Cloud,
    /// Another login base instead of the cloud's, such as `http://127.0.0.1:9000`; plain http on loopback alone.
    pub authority: Option<String>,
    /// Names and the object ids they stand for, in order. With several tenants an id is `TENANT/OID`.
    pub groups: Vec<(String, String)>,
    /// The directory, for what tokens do not say.
    pub graph: Option<Graph>,
    /// Whether version 1 tokens are taken too.
    pub v1: bool,
    /// Where given, a token that was issued for a person needs one of these.
    pub scopes: Vec<String>,
    /// Whether guests may log in.
    pub guests: bool,
}

/// How Microsoft Graph is reached.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The gateway's application id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// Another base than the cloud's, such as `http://127.0.0.1:9000/v1.0`.
    pub endpoint: Option<String>,
}

/// Another OpenID Connect issuer.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// Its name in the configuration: what qualifies its groups and subjects.
    pub name: String,
    /// The issuer, byte for byte as its tokens state it.
    pub issuer: String,
    /// What `aud` must be, or contain.
    pub audiences: Vec<String>,
    /// The claim with group names: a string or a list of strings; a path with dots where no claim has that very name.
    pub groups_claim: Option<String>,
    /// What kind its subjects are.
    pub kind: IdentityKind,
    /// The claim that identifies the subject; `sub`.
    pub subject_claim: String,
    /// The claim with roles, in the form of `groups_claim`.
    pub roles_claim: Option<String>,
    /// The signature algorithms that are taken: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`,
    /// `EdDSA`.
    pub algorithms: Vec<String>,
}

/// Settings that contradict themselves, or that nothing could be verified with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A tenant is no GUID.
    #[error("tenant {tenant:?} is not a GUID (names, `common` and `organizations` are not taken)")]
    Tenant {
        /// What was given.
        tenant: String,
    },
    /// Nothing to compare `aud` with.
    #[error("{provider}: no audience is given, so no token could be meant for this gateway")]
    Audiences {
        /// `entra`, or the issuer's name.
        provider: String,
    },
    /// A group's id is none.
    #[error("group {name:?}: {id:?} is not {expected}")]
    Group {
        /// The group's name.
        name: String,
        /// What was given as its id.
        id: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A URL that cannot be used.
    #[error("{url:?}: {problem}")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        problem: &'static str,
    },
    /// A signature algorithm that is not taken.
    #[error("{provider}: algorithm {algorithm:?} is not one of RS, PS 256 to 512, ES256, ES384, EdDSA")]
    Algorithm {
        /// The issuer's name.
        provider: String,
        /// What was given.
        algorithm: String,
    },
    /// Two issuers with one name or one URL.
    #[error("issuer {name:?} is there twice, or uses a reserved name")]
    Duplicate {
        /// The name or URL.
        name: String,
    },
    /// The certificate authorities cannot be read.
    #[error("certificate authorities: {problem}")]
    Roots {
        /// Why not.
        problem: String,
    },
    /// The HTTP client could not be set up.
    #[error("HTTP client: {problem}")]
    Client {
        /// Why not.
        problem: String,
    },
}
