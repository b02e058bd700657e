//! Tokens in, identities out: Microsoft Entra and OpenID Connect discovery, keys, validation and groups
